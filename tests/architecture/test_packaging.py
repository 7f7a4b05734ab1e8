"""The wheel, built through the sdist as a release is, holds every module, config and example."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("conf", "compiler", "runtime", "harness", "launcher", "monitor", "examples")


def shipped(folder: str) -> set[str]:
    """Return what a folder at the root has to bring into the wheel, by its place there."""
    paths = [
        *(ROOT / folder).rglob("*.py"),
        *(ROOT / folder).rglob("*.yaml"),
        *(ROOT / folder / "data").glob("*"),
        *(ROOT / folder / "api_tables").glob("*"),
        *(ROOT / folder / "model_tables").glob("*"),
        *(ROOT / folder).glob("*.html"),
        *(ROOT / folder / "tables").glob("*"),
    ]
    return {f"podproof/{path.relative_to(ROOT)}" for path in paths}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Build sdist and wheel from a copy of the checkout; return the names in the wheel."""
    copy = tmp_path_factory.mktemp("build") / "checkout"
    left_out = shutil.ignore_patterns(
        ".*", "__pycache__", "tests", "build", "dist", "outputs", "*.egg-info"
    )
    shutil.copytree(ROOT, copy, symlinks=True, ignore=left_out)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(copy / "out"), str(copy)],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = (copy / "out").glob("*.whl")
    return set(zipfile.ZipFile(path).namelist())


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_in_a_folder_is_in_the_wheel(wheel: set[str], folder: str) -> None:
    assert shipped(folder) - wheel == set()
    assert shipped(folder)


def test_the_command_line_and_the_marker_for_types_are_in_the_wheel(wheel: set[str]) -> None:
    own = {f"podproof/{path.relative_to(ROOT / 'src' / 'podproof')}" for path in _own_files()}

    assert own | {"podproof/py.typed"} <= wheel


def test_nothing_is_in_the_wheel_that_is_not_ours(wheel: set[str]) -> None:
    ours = set().union(*(shipped(folder) for folder in FOLDERS))
    ours |= {f"podproof/{path.relative_to(ROOT / 'src' / 'podproof')}" for path in _own_files()}

    strangers = {name for name in wheel - ours if ".dist-info/" not in name}
    assert strangers == {"podproof/py.typed"}


def _own_files() -> list[Path]:
    package = ROOT / "src" / "podproof"
    return [*package.glob("*.py"), *(package / "cli").glob("*.py")]
