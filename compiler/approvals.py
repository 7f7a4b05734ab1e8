"""Approved scripts: the one each experiment may be, who approved it, when, and why.

They lie in a folder that is kept with the configs, one folder for each name:

    podproof-approved/NAME/ ── pod_script.py, manifest.json, approvals.json

`approvals.json` is a list, the newest last; the script is the one its last entry names.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from podproof.compiler.errors import BadScript
from podproof.compiler.rules import NAME
from podproof.compiler.script import MANIFEST_NAME, SCRIPT_NAME, write_whole
from podproof.compiler.sides import Side, side_of_text
from podproof.runtime.errors import Problem

FOLDER_NAME = "podproof-approved"
APPROVALS_NAME = "approvals.json"

_APPROVE_AGAIN = "restore the folder from version control, or approve the script again"


@dataclass(frozen=True)
class Approval:
    """Somebody's yes to one script.

    `sha256` is that of the script's text. `when_unix_s` is in seconds. `changes` names what was
    different from the script approved before, as `CRITICAL changed data.eval.path`.
    """

    name: str
    sha256: str
    who: str
    why: str
    when_unix_s: float
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Approved:
    """The approved script of one experiment, and every approval it had, the newest last."""

    side: Side
    approvals: tuple[Approval, ...]

    @property
    def latest(self) -> Approval:
        """Return the approval that holds."""
        return self.approvals[-1]


def read_approved(folder: Path, name: str) -> Approved | None:
    """Return what is approved under a name; None when nothing is.

    Raise BadScript when what lies there is not what was approved.
    """
    place = folder / name
    if not (place / APPROVALS_NAME).is_file():
        return None
    approvals = _read_approvals(place)
    text = _read_text(place / SCRIPT_NAME)
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    if not approvals or approvals[-1].sha256 != digest:
        what = f"{SCRIPT_NAME} has sha256 {digest[:12]}, which nobody approved last"
        raise BadScript(Problem(str(place), what, _APPROVE_AGAIN))
    return Approved(side_of_text(text, str(place), read_manifest(place)), approvals)


def write_approved(
    text: str, beside: Mapping[str, Any], approval: Approval, folder: Path
) -> tuple[Approval, ...]:
    """Write the script as the approved one of its name; return all approvals of it.

    `beside` is its manifest. Raise BadScript when the folder cannot be written, or when the name
    could not be a folder's.
    """
    if not NAME.fullmatch(approval.name):
        raise BadScript(Problem("name", f"{approval.name!r} cannot name a folder"))
    place = folder / approval.name
    before = _read_approvals(place) if (place / APPROVALS_NAME).is_file() else ()
    approvals = (*before, approval)
    try:
        place.mkdir(parents=True, exist_ok=True)
        write_whole(place / SCRIPT_NAME, text)
        write_whole(place / MANIFEST_NAME, _as_json(beside))
        # Last: a script without its approval is refused, and never taken for an approved one.
        write_whole(place / APPROVALS_NAME, _as_json([asdict(item) for item in approvals]))
    except OSError as error:
        way_out = "free some space, or make the folder writable"
        raise BadScript(Problem(str(place), f"cannot be written: {error}", way_out)) from error
    return approvals


def all_approvals(folder: Path) -> tuple[Approval, ...]:
    """Return every approval in a folder, by name, the newest of a name last."""
    places = sorted(path.parent for path in folder.glob(f"*/{APPROVALS_NAME}"))
    return tuple(approval for place in places for approval in _read_approvals(place))


def read_manifest(folder: Path) -> Mapping[str, Any] | None:
    """Return the manifest in a folder; None without one. Raise BadScript when it is not JSON."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        return None
    value = _read_json(path)
    return value if isinstance(value, dict) else None


def _read_approvals(place: Path) -> tuple[Approval, ...]:
    path = place / APPROVALS_NAME
    values = _read_json(path)
    try:
        return tuple(_approval(value) for value in values)
    except (TypeError, KeyError, ValueError, OverflowError, OSError) as error:
        what = f"is no list of approvals: {error}"
        raise BadScript(Problem(str(path), what, _APPROVE_AGAIN)) from error


def _approval(value: Mapping[str, Any]) -> Approval:
    approval = Approval(**{**value, "changes": tuple(value["changes"])})
    words = (approval.name, approval.sha256, approval.who, approval.why, *approval.changes)
    if not all(isinstance(word, str) for word in words):
        raise TypeError("name, sha256, who, why and changes must be text")
    # Raises what is no number, and what is no moment of a calendar.
    datetime.fromtimestamp(approval.when_unix_s, UTC)
    return approval


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except ValueError as error:
        raise BadScript(Problem(str(path), f"is not JSON: {error}", _APPROVE_AGAIN)) from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadScript(Problem(str(path), f"cannot be read: {error}", _APPROVE_AGAIN)) from error


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"
