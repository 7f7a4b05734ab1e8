"""Every change between two scripts, with its risk, its mitigation, and who must agree.

A pure function of two sides: nothing of either is run here. What running their scorers shows is
handed in, since only the harness runs code.
"""

from collections.abc import Iterable, Iterator, Sequence

from podproof.compiler.anatomy import Anatomy, anatomy_of, sections_of
from podproof.compiler.callback_changes import callback_changes
from podproof.compiler.changes import Aspect, Change, Difference, Verb, Verdict, in_order
from podproof.compiler.code_changes import code_changes, module_changes
from podproof.compiler.environment_changes import (
    import_changes,
    pin_changes,
    size_changes,
    variable_changes,
)
from podproof.compiler.field_changes import field_changes
from podproof.compiler.plan_changes import argument_changes, plan_changes, pod_changes
from podproof.compiler.semantic import Known, quantities
from podproof.compiler.sides import Side

_NOTHING_KNOWN = Known()


def diff(
    before: Side,
    after: Side,
    *,
    known: tuple[Known, Known] = (_NOTHING_KNOWN, _NOTHING_KNOWN),
    choices: Sequence[Change] = (),
) -> Difference:
    """Return everything that is different, the gravest first.

    `known` is what is known of each side beside its text. `choices` are the changes that running
    both scorers shows (podproof.harness.choices). Raise BadScript for what is not Python.
    """
    changes = [*_changes(before, after), *choices]
    return Difference(
        before=before.label,
        after=after.label,
        changes=in_order(changes),
        quantities=tuple(item for item in quantities(before, after, *known) if item.is_changed),
        verdicts=tuple(_verdicts(changes)),
    )


def _changes(before: Side, after: Side) -> Iterator[Change]:
    yield from plan_changes(before, after)
    yield from pod_changes(before, after)
    yield from pin_changes(before, after)
    yield from size_changes(before, after)
    one, other = sections_of(before.text), sections_of(after.text)
    same = {name for name in one.keys() & other.keys() if one[name] == other[name]}
    alone = _alone(before, after) if one.keys() != other.keys() and one and other else set[str]()
    yield from module_changes(
        anatomy_of(before.text, frozenset(one.keys() - alone)),
        anatomy_of(after.text, frozenset(other.keys() - alone)),
    )
    # What only one side has is told as a module, and what is the same word for word not at all.
    untold = frozenset(same | alone)
    yield from _changes_of_code(
        before, after, anatomy_of(before.text, untold), anatomy_of(after.text, untold)
    )
    program = (one.keys() & other.keys()) - {"entry"}
    if not (one and other) or any(one[name] != other[name] for name in program):
        # What is written in one module may be put together in another, which did not change.
        yield from field_changes(
            anatomy_of(before.text, frozenset(alone)), anatomy_of(after.text, frozenset(alone))
        )


def _alone(before: Side, after: Side) -> set[str]:
    """Return the modules that one side has and of which nothing is found on the other.

    A module into which code was moved is compared with where that code was before.
    """
    one, other = anatomy_of(before.text), anatomy_of(after.text)
    return {
        name
        for side, opposite in ((one, other), (other, one))
        for name in side.modules - opposite.modules
        if side.names_in(name).isdisjoint(opposite.names)
    }


def _changes_of_code(before: Side, after: Side, one: Anatomy, other: Anatomy) -> Iterator[Change]:
    yield from variable_changes(before, after, one, other)
    if one == other:
        return
    yield from callback_changes(one, other)
    yield from code_changes(one, other)
    yield from import_changes(before, after, one, other)
    if before.plan is None or after.plan is None:
        yield from argument_changes(one, other)


def _verdicts(changes: Iterable[Change]) -> Iterator[Verdict]:
    """Answer for everything what each change answers for itself."""
    found = list(changes)
    needs = [item for item in found if item.aspect in {Aspect.ENVIRONMENT, Aspect.PINS}]
    broken = [item.name for item in needs if item.needs_approval]
    words = f"to be seen to: {', '.join(broken)}" if broken else "no new package, no new variable"
    yield Verdict("environment", not broken, words)
    columns = [item.name for item in found if item.aspect is Aspect.SCHEMA]
    fields = [item for item in found if item.aspect is Aspect.METRICS and item.verb is Verb.ADDED]
    words = "no migration: new fields lie in JSON" if fields else "nothing changes"
    yield Verdict("schema", not columns, f"a migration: {', '.join(columns)}" if columns else words)
    gone = [
        item.name
        for item in found
        if item.needs_approval
        and (
            item.aspect is Aspect.API
            or (item.aspect is Aspect.METRICS and item.verb is not Verb.ADDED)
        )
    ]
    words = "constructors, hooks and what is reported stay as they were: a drop-in replacement"
    yield Verdict("API", not gone, f"callers must change: {', '.join(gone)}" if gone else words)
