"""What can stand on a side of a diff: a script, a config, or either of them at a git revision."""

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from podproof.cli.revisions import tree_at
from podproof.compiler.approvals import read_manifest
from podproof.compiler.errors import BadConfig, BadScript
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import SCRIPT_NAME, compile_run
from podproof.compiler.sides import Side, side_of, side_of_text
from podproof.runtime.errors import Problem

# As git writes it; a path that exists is taken for a path.
_AT_REVISION = re.compile(r"(?P<revision>[^:=\s]+):(?P<rest>.+)", re.DOTALL)

_WAYS = (
    "name a pod script, a folder with one, an experiment's YAML file, 'experiment=NAME ...' in "
    "quotes, or REVISION: before any of them"
)


def side_from(argument: str, config_dir: Path | None) -> Side:
    """Return the side an argument names; raise BadConfig or BadScript with the way out."""
    found = None if _exists(Path(argument)) else _AT_REVISION.fullmatch(argument)
    if found is None:
        return _side_here(argument, argument, config_dir)
    with tree_at(found["revision"]) as tree, _inside(tree, argument):
        # Everything is looked up in the tree of the revision: configs, scripts, an own scorer.
        there = _folder_there(config_dir, argument)
        return _side_here(found["rest"], argument, there)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # longer than any name of a file
        return False


def _split(argument: str, label: str) -> list[str]:
    try:
        return shlex.split(argument)
    except ValueError as error:
        raise BadConfig(Problem(label, str(error), "close every quotation mark")) from error


@contextlib.contextmanager
def _inside(tree: Path, argument: str) -> Iterator[None]:
    if not tree.is_dir():
        what = "this folder is not in that revision"
        raise BadConfig(Problem(argument, what, "run it from a folder that was there"))
    with contextlib.chdir(tree):
        yield


def _folder_there(config_dir: Path | None, argument: str) -> Path | None:
    if config_dir is None:
        return None
    if config_dir.is_absolute() or not config_dir.is_dir():
        what = f"there is no folder {config_dir} at that revision"
        raise BadConfig(Problem(argument, what, "name --config-dir as it lies in the repository"))
    return config_dir


def _side_here(argument: str, label: str, config_dir: Path | None) -> Side:
    path = Path(argument)
    if "=" in argument and not _exists(path):
        return _from_config(_split(argument, label), label, config_dir)
    if path.suffix in {".yaml", ".yml"}:
        return _from_experiment(path, label)
    file = path / SCRIPT_NAME if path.is_dir() else path
    if not file.is_file():
        raise BadConfig(Problem(label, "there is no such file", _WAYS))
    return script_side(file, label)


def script_side(file: Path, label: str) -> Side:
    """Return the side of a script's file, with the manifest beside it; raise BadScript."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadScript(Problem(label, f"cannot be read: {error}", _WAYS)) from error
    try:
        return side_of_text(text, label, _manifest_of(file, text))
    except BadScript as error:
        raise BadScript(
            *[Problem(f"{label} {item.where}", item.what) for item in error.problems]
        ) from error


def _manifest_of(file: Path, text: str) -> dict[str, object] | None:
    """Return the manifest beside a script, if it is of this very script."""
    import hashlib

    beside = read_manifest(file.parent)
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return dict(beside) if beside is not None and beside.get("sha256") == digest else None


def _from_config(overrides: list[str], label: str, config_dir: Path | None) -> Side:
    return side_of(compile_run(lower(read(Request(tuple(overrides), config_dir)))), label)


def _from_experiment(path: Path, label: str) -> Side:
    """Compile the experiment of a YAML file; its configs lie in the folder above `experiment/`."""
    if not path.is_file():
        raise BadConfig(Problem(label, "there is no such file", _WAYS))
    if path.absolute().parent.name != "experiment":
        what = "is not in a folder called experiment"
        way_out = "put it into mine/experiment/ and name it there, or use --config-dir"
        raise BadConfig(Problem(label, what, way_out))
    folder = path.absolute().parent.parent
    return _from_config([f"experiment={path.stem}"], label, folder)
