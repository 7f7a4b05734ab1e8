"""The regression gate: what changed since the experiment's script was approved, and who agreed."""

from podproof.compiler.approvals import Approved, read_approved
from podproof.compiler.changes import Change
from podproof.compiler.diff import diff
from podproof.compiler.errors import BadScript
from podproof.compiler.ir import PodScript
from podproof.compiler.sides import side_of
from podproof.harness.choices import choice_changes
from podproof.harness.verdict import Surroundings
from podproof.runtime.errors import Problem


def regression_answer(
    script: PodScript, surroundings: Surroundings
) -> tuple[str, tuple[Problem, ...]]:
    """Return what differs from the approved script of the same name; a problem for each change.

    Only changes that need an approval are problems. Without an approved script there is nothing
    to hold this one against, and the summary says so.
    """
    name = script.run.plan.name
    try:
        approved = (
            None if surroundings.approved is None else read_approved(surroundings.approved, name)
        )
    except BadScript as error:
        return "the approved script cannot be read", tuple(error.problems)
    if approved is None:
        return f"no approved script of {name} to compare with; podproof approve writes one", ()
    by = f"approved by {approved.latest.who}"
    if approved.latest.sha256 == script.sha256:
        return f"the script {by}: {approved.latest.why}", ()
    return _held_against(approved, script, by)


def _held_against(
    approved: Approved, script: PodScript, by: str
) -> tuple[str, tuple[Problem, ...]]:
    side = side_of(script, "this script")
    difference = diff(approved.side, side, choices=choice_changes(approved.side, side))
    needing = difference.needing_approval
    count = len(difference.changes)
    told = f"{count} change{'' if count == 1 else 's'} since the script {by}"
    verb = "needs" if len(needing) == 1 else "need"
    return f"{told}, {len(needing)} {verb} an approval", tuple(_problem(item) for item in needing)


def _problem(change: Change) -> Problem:
    what = f"{change.risk.value}: {change.verb.value}, {change.detail or change.aspect.value}"
    way_out = f"{change.mitigation}; then podproof approve ... --why 'the reason'"
    return Problem(change.name, what, way_out)
