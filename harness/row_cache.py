"""What the data gate found, remembered by the digest of everything it looked at."""

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from podproof import runtime

_FOLDER = ("cache", "data")
_PIECE = 1 << 20
# TRL brings chat templates along, which take the place of a model's own.
_LIBRARIES = ("tokenizers", "jinja2", "trl", "pyarrow")


def cache_key(files: Sequence[Path], asked: Mapping[str, Any]) -> str:
    """Return a digest of the files' names and bytes, and of what is asked of them."""
    whole = sha256(json.dumps(asked, sort_keys=True, default=str).encode())
    for path in files:
        whole.update(f"{path.name} {_file_sha256(path)} ".encode())
    return whole.hexdigest()


def remembered(home: Path | None, key: str) -> Mapping[str, Any] | None:
    """Return what was kept under a key, or None; an entry that cannot be read is none."""
    if home is None:
        return None
    try:
        value = json.loads(_entry(home, key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def remember(home: Path | None, key: str, value: Mapping[str, Any]) -> None:
    """Keep a value under a key: whole or not at all. Without a home, or room on it, nothing is."""
    if home is None:
        return
    path = _entry(home, key)
    # What cannot be remembered is looked at again, which costs time and nothing else.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, json.dumps(value, sort_keys=True))


@cache
def code_sha256(*folders: Path) -> str:
    """Return a digest of the code in some folders; without any, of all that judges rows.

    A rule that changes forgets what it said before.
    """
    whole = sha256()
    for folder in folders or (Path(__file__).parent, Path(runtime.__file__).parent):
        for path in sorted(folder.glob("*.py")):
            whole.update(path.read_bytes())
    return whole.hexdigest()


def library_versions() -> Mapping[str, str]:
    """Return the versions of the libraries that render templates and count tokens here."""
    return {name: _version(name) for name in _LIBRARIES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)  # noqa: PTH108 - beside os.replace
        raise


def _entry(home: Path, key: str) -> Path:
    return home.joinpath(*_FOLDER, f"{key}.json")


def _file_sha256(path: Path) -> str:
    whole = sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            whole.update(piece)
    return whole.hexdigest()
