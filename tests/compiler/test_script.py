"""The pod script: the same bytes for the same run, self-contained, and written whole."""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from podproof.compiler.errors import BadScript
from podproof.compiler.ir import PodScript, Run
from podproof.compiler.lower import lower
from podproof.compiler.schema import Config
from podproof.compiler.script import compile_run, manifest, runtime_sources, write_script
from podproof.runtime.plan import plan_from_json
from tests.compiler.conftest import ROOT, read_config

COMPILE = """
import sys
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run
sys.stdout.write(compile_run(lower(read(Request(tuple(sys.argv[1:]))))).sha256)
"""

# Loads the script as a module without site-packages, so that an import of anything but the
# standard library fails, and uses what the harness uses of it.
USE = """
import sys, types
before = set(sys.modules)
module = types.ModuleType("pod_script")
sys.modules["pod_script"] = module
exec(compile(open(sys.argv[1], encoding="utf-8").read(), "pod_script.py", "exec"), vars(module))
plan = module.plan_from_json(module.PLAN_JSON)
state, score = module.observe_evaluation(module.ScoreState(), 1, 2.0, plan.scorer)
callback = module.PodCallback(plan.scorer, lambda *a, **k: None, module.StopRequest())
callback.on_log(None, types.SimpleNamespace(global_step=1, epoch=0.1, log_history=[],
    is_world_process_zero=True), None, logs={"loss": 1.0})
foreign = {name for name in sys.modules if name.partition(".")[0] not in sys.stdlib_module_names}
print(plan.name, score.value, callback.scores.train_ema, sorted(foreign - {"pod_script"} - before))
"""


def run_python(
    *arguments: str, folder: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def written(script: PodScript, tmp_path: Path) -> Path:
    """Write the script with the data its plan names beside it, as somebody carries it off."""
    path, _ = write_script(script, tmp_path / "carried")
    shutil.copy(ROOT / "examples" / "data" / "sft.jsonl", path.parent)
    return path


# The same run, the same bytes.


def test_compiling_twice_gives_the_same_bytes(run: Run, script: PodScript) -> None:
    assert compile_run(run) == script
    assert script.sha256 == hashlib.sha256(script.text.encode()).hexdigest()


def test_another_process_folder_hash_seed_and_time_zone_give_the_same_bytes(
    script: PodScript, tmp_path: Path
) -> None:
    other = run_python(
        "-c",
        COMPILE,
        "experiment=tiny_sft",
        folder=tmp_path,
        PYTHONHASHSEED="12345",
        TZ="Pacific/Kiritimati",
        LC_ALL="C",
        PYTHONUTF8="0",
        SOURCE_DATE_EPOCH="0",
        HOME=str(tmp_path),
        USER="somebody-else",
    )

    assert other.stdout == script.sha256, other.stderr


def test_keys_in_another_order_give_the_same_bytes(tmp_path: Path) -> None:
    folders = {"one": tmp_path / "one", "two": tmp_path / "two"}
    text = {
        "one": "seed: 3\ntrainer:\n  optim: sgd\n  extra: {a: 1, b: {c: 2, d: 3}}\npod:\n"
        "  env: {X: x, Y: y}\n",
        "two": "pod:\n  env: {Y: y, X: x}\ntrainer:\n  extra: {b: {d: 3, c: 2}, a: 1}\n"
        "  optim: sgd\nseed: 3\n",
    }
    scripts = []
    for name, folder in folders.items():
        (folder / "experiment").mkdir(parents=True)
        (folder / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text[name]}")
        config = read_config("experiment=mine", config_dir=folder)
        scripts.append(compile_run(lower(config)))

    assert scripts[0].text == scripts[1].text


def test_overrides_in_another_order_give_the_same_bytes() -> None:
    one = read_config("seed=3", "experiment=tiny_dpo", "method.beta=0.2", "name=a")
    two = read_config("name=a", "method.beta=0.2", "experiment=tiny_dpo", "seed=3")

    assert compile_run(lower(one)).text == compile_run(lower(two)).text


@pytest.mark.parametrize("shape", [r"/(tmp|home|root|usr|var)/", r"\b20\d\d-\d\d-\d\d"])
def test_the_script_says_nothing_of_the_machine_or_the_day(script: PodScript, shape: str) -> None:
    assert re.findall(shape, script.text) == []


# One file that needs nothing but Python to be looked at.


def test_the_header_is_metadata_that_names_python_and_the_exact_requirements(
    script: PodScript,
) -> None:
    lines = script.text.splitlines()
    end = lines.index("# ///")
    block = tomllib.loads("\n".join(line.removeprefix("#").strip() for line in lines[1:end]))

    assert lines[0] == "# /// script"
    assert block == {
        "requires-python": ">=3.11",
        "dependencies": list(script.run.requirements),
    }


def test_the_header_names_the_run_and_the_config_it_came_from(script: PodScript) -> None:
    head = script.text.partition('"""')[0]

    assert f"# podproof pod script: {script.run.plan.name} (sft)\n" in head
    assert f"# config sha256: {script.run.plan.config_sha256}\n" in head


def test_the_docstring_is_that_of_the_entry_and_says_how_to_run_it(script: PodScript) -> None:
    told = ast.get_docstring(ast.parse(script.text))

    assert told == ast.get_docstring(ast.parse(runtime_sources()["entry"]))
    assert "uv run pod_script.py" in (told or "")


def test_the_plan_in_the_script_is_the_plan_of_the_run(script: PodScript) -> None:
    assigned = [
        node.value
        for node in ast.parse(script.text).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PLAN_JSON"
    ]

    (value,) = assigned
    assert plan_from_json(ast.literal_eval(value)) == script.run.plan


def test_the_boot_code_does_not_ride_in_the_script(script: PodScript) -> None:
    names = [name for name, _, _ in script.modules]

    assert "boot" not in names
    assert names[-1] == "entry"
    assert set(names) <= set(runtime_sources())


def test_every_module_lies_where_the_map_says_line_for_line(script: PodScript) -> None:
    lines = script.text.splitlines()
    sources = runtime_sources()
    distances = {
        name: {
            lines.index(sources[name].splitlines()[node.lineno - 1], first) + 1 - node.lineno
            for node in ast.parse(sources[name]).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        for name, first, _ in script.modules
    }

    assert {name: len(found) for name, found in distances.items() if len(found) > 1} == {}


def test_importing_the_script_does_nothing_and_needs_the_standard_library_only(
    written: Path,
) -> None:
    used = run_python("-S", "-B", "-I", "-c", USE, str(written), folder=written.parent)

    assert used.stdout == "tiny-sft 2.0 1.0 []\n", used.stderr
    assert sorted(path.name for path in written.parent.iterdir()) == [
        "manifest.json",
        "pod_script.py",
        "sft.jsonl",
    ]


def test_the_script_checks_itself_with_only_its_data_beside_it(written: Path) -> None:
    checked = run_python("-S", "-B", str(written), "--selfcheck", folder=written.parent)

    assert checked.returncode == 0, checked.stderr
    assert "scorer vectors: all reproduced\n" in checked.stdout
    assert " sequences per step\n" in checked.stdout
    assert not (written.parent / "podproof-output").exists()


# Written whole, or not at all.


def test_the_manifest_says_what_the_script_is(script: PodScript, written: Path) -> None:
    said = json.loads((written.parent / "manifest.json").read_text())

    assert written.read_bytes() == script.text.encode()
    assert said == manifest(script)
    assert (said["sha256"], said["bytes"]) == (script.sha256, len(script.text.encode()))
    assert said["requirements"] == list(script.run.requirements)
    assert [module["name"] for module in said["modules"]] == [name for name, *_ in script.modules]


def test_writing_again_replaces_what_was_there(
    script: PodScript, configs: Mapping[str, Config], written: Path
) -> None:
    other = compile_run(lower(configs["dpo"]))

    write_script(other, written.parent)

    assert written.read_text(encoding="utf-8") == other.text
    assert json.loads((written.parent / "manifest.json").read_text())["sha256"] == other.sha256


@pytest.mark.parametrize("place", ["a-file", "a-file/below", "taken"])
def test_a_folder_that_cannot_be_written_is_refused_and_holds_nothing_new(
    script: PodScript, tmp_path: Path, place: str
) -> None:
    (tmp_path / "a-file").write_text("mine")
    (tmp_path / "taken" / "pod_script.py" / "inside").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(BadScript) as refused:
        write_script(script, tmp_path / place)

    assert refused.value.problems[0].where == str(tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


FULL_DISK = """
import resource, sys
from pathlib import Path
from podproof.compiler.errors import BadScript
from podproof.compiler.ir import PodScript
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run, write_script
script = compile_run(lower(read(Request(("experiment=tiny_sft",)))))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_script(script, Path(sys.argv[1]))
except BadScript as error:
    print(error)
"""


def test_a_disk_that_fills_up_leaves_what_was_there(written: Path) -> None:
    (written.parent / "manifest.json").write_text("before")

    full = run_python("-c", FULL_DISK, str(written.parent), folder=written.parent)

    assert "cannot be written" in full.stdout, full.stderr
    assert (written.parent / "manifest.json").read_text() == "before"
    assert sorted(path.name for path in written.parent.iterdir()) == [
        "manifest.json",
        "pod_script.py",
        "sft.jsonl",
    ]
