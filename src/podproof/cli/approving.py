"""`podproof approve`: make a script the one its experiment may be, with who, when and why."""

import argparse
import getpass
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from podproof.cli.diffing import compared
from podproof.cli.scripts import compiled, request_of
from podproof.cli.sides import script_side
from podproof.cli.terminal import err, home, out, print_json, show
from podproof.compiler.approvals import (
    Approval,
    all_approvals,
    read_approved,
    read_manifest,
    write_approved,
)
from podproof.compiler.changes import Difference
from podproof.compiler.errors import BadConfig, BadScript
from podproof.compiler.script import manifest
from podproof.compiler.sides import Side, side_of
from podproof.harness.surroundings import approved_folder
from podproof.runtime.errors import Problem


def approve_script(options: argparse.Namespace) -> int:
    """Write the approved script and its approval, or list all approvals; return the exit code."""
    if options.list:
        return _list_approvals(as_json=options.json)
    why = (options.why or "").strip()
    if not why:
        what = "an approval needs a reason"
        raise BadConfig(Problem("--why", what, "podproof approve ... --why 'the reason'"))
    side, beside = _to_approve(options)
    difference = _since_the_last(side, str(beside["name"]))
    approval = Approval(
        name=str(beside["name"]),
        sha256=str(beside["sha256"]),
        who=who_approves(),
        why=why,
        when_unix_s=round(time.time(), 3),
        changes=_told(difference),
    )
    write_approved(side.text, beside, approval, approved_folder())
    _record(approval)
    _say(approval, difference, as_json=options.json)
    return 0


def who_approves() -> str:
    """Return git's user as `name <email>`, else the user of this machine."""
    name, email = (_git_config(key) for key in ("user.name", "user.email"))
    if name or email:
        return f"{name} <{email}>".strip() if email else name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _to_approve(options: argparse.Namespace) -> tuple[Side, Mapping[str, Any]]:
    """Return the script to approve and its manifest, compiled or read from its file."""
    if options.script is None:
        script = compiled(request_of(options))
        return side_of(script, script.run.plan.name), manifest(script)
    if options.overrides:
        what = "a script and overrides exclude each other"
        raise BadConfig(Problem("--script", what, "approve one of them"))
    file = Path(options.script)
    side = script_side(file, str(file))
    if side.pod is None:
        what = "has no manifest.json of its own beside it"
        raise BadScript(Problem(str(file), what, "compile it again: podproof compile -o DIR"))
    return side, read_manifest(file.parent) or {}


def _since_the_last(side: Side, name: str) -> Difference | None:
    try:
        approved = read_approved(approved_folder(), name)
    except BadScript as error:
        err().print(f"the script approved before cannot be read: {error}", soft_wrap=True)
        return None
    return None if approved is None else compared(approved.side, side)


def _told(difference: Difference | None) -> tuple[str, ...]:
    needing = () if difference is None else difference.needing_approval
    return tuple(f"{item.risk.value} {item.verb.value} {item.name}" for item in needing)


def _record(approval: Approval) -> None:
    """Keep the approval in the store too, where there is one."""
    path = home() / "podproof.db"
    if not path.is_file():
        return
    from podproof.monitor.store import open_store

    with open_store(path) as store:
        store.record_approval(approval)


def _say(approval: Approval, difference: Difference | None, *, as_json: bool) -> None:
    place = approved_folder() / approval.name
    if as_json:
        print_json({**_as_dict(approval), "path": str(place)})
        return
    if difference is not None:
        from podproof.harness.diff_report import show_difference

        show(show_difference(difference))
    line = f"{place}  sha256 {approval.sha256[:12]}  approved by {approval.who}: {approval.why}"
    out().print(line, soft_wrap=True, markup=False)


def _list_approvals(*, as_json: bool) -> int:
    approvals = all_approvals(approved_folder())
    if as_json:
        print_json([_as_dict(approval) for approval in approvals])
        return 0
    table = Table(box=None, pad_edge=False)
    for title in ("name", "sha256", "when (UTC)", "who", "why"):
        table.add_column(title, overflow="fold")
    for item in approvals:
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(item.when_unix_s))
        table.add_row(*map(Text, (item.name, item.sha256[:12], when, item.who, item.why)))
    show(table if approvals else Text(f"nothing is approved in {approved_folder()}"))
    return 0


def _as_dict(approval: Approval) -> dict[str, Any]:
    import dataclasses

    return {**dataclasses.asdict(approval), "changes": list(approval.changes)}


def _git_config(key: str) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    command = [git, "config", "--get", key]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
