"""Who may import what: the pod's code the standard library only, the compiler no weights."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNTIME = sorted(path for path in (ROOT / "runtime").glob("*.py") if path.stem != "__init__")
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "runpod", "hypothesis", "sqlalchemy"}

COMPILE = """
import sys
from podproof.cli import main
code = main(sys.argv[1:])
print(code, sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported_when_loaded(path: Path) -> set[str]:
    """Return the modules a file imports outside of any function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in inside:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and id(node) not in inside:
            names.add(node.module or ".")
    return names


def python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("path", RUNTIME, ids=lambda path: path.stem)
def test_a_runtime_module_imports_the_standard_library_and_its_own_kind(path: Path) -> None:
    foreign = {
        name
        for name in imported_when_loaded(path)
        if not name.startswith("podproof.runtime.")
        and name.partition(".")[0] not in sys.stdlib_module_names
    }

    assert foreign == set()


def test_every_runtime_module_loads_without_site_packages(tmp_path: Path) -> None:
    modules = [f"podproof.runtime.{path.stem}" for path in RUNTIME]
    load = "import importlib, sys\nsys.path.insert(0, sys.argv[1])\n"
    load += "for name in sys.argv[2:]:\n    importlib.import_module(name)\nprint('loaded')"

    loaded = python("-S", "-B", "-I", "-c", load, str(ROOT / "src"), *modules, folder=tmp_path)

    assert loaded.stdout == "loaded\n", loaded.stderr


def test_the_boot_program_stands_alone(tmp_path: Path) -> None:
    alone = tmp_path / "boot.py"
    alone.write_bytes((ROOT / "runtime" / "boot.py").read_bytes())

    loaded = python(
        "-S", "-B", "-I", "-c", "import runpy; runpy.run_path('boot.py')", folder=tmp_path
    )

    assert not any(name.startswith("podproof") for name in imported_when_loaded(alone))
    assert (loaded.returncode, loaded.stdout) == (0, ""), loaded.stderr


def test_compiling_loads_no_weights_no_provider_and_no_test_tool(tmp_path: Path) -> None:
    compiled = python("-c", COMPILE, "compile", "experiment=tiny_sft", folder=tmp_path)

    code, _, loaded = compiled.stdout.splitlines()[-1].partition(" ")
    assert code == "0", compiled.stderr
    assert {name for name in HEAVY if f"'{name}'" in loaded} == set()
    assert (tmp_path / "outputs" / "tiny-sft" / "pod_script.py").is_file()


def test_the_layers_and_the_doors_of_the_packages_hold() -> None:
    lint = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert lint.returncode == 0, lint.stdout
