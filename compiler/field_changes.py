"""What changed in the fields others read: metrics, events, columns of tables, posted JSON."""

from collections.abc import Iterable, Iterator

from podproof.compiler.anatomy import Anatomy
from podproof.compiler.changes import Aspect, Change, Risk, Verb
from podproof.compiler.emitted import Emitted, emitted_by


def field_changes(before: Anatomy, after: Anatomy) -> Iterator[Change]:
    """Yield a change for the fields of each place that come or go."""
    one, other = emitted_by(before), emitted_by(after)
    for verb, fields in ((Verb.ADDED, other - one), (Verb.REMOVED, one - other)):
        columns = {field for field in fields if field.is_column}
        for place, group in _by_place(columns):
            yield _column_change(verb, place, group)
        for place, group in _by_place(fields - columns):
            yield _field_change(verb, place, group)


def _by_place(fields: Iterable[Emitted]) -> list[tuple[str, list[Emitted]]]:
    """Return the fields by what they lie in, such as `training_jobs.metrics`."""
    places: dict[str, list[Emitted]] = {}
    for field in sorted(fields):
        places.setdefault(".".join((field.sink, *field.path[:-1])), []).append(field)
    return sorted(places.items())


def _listed(group: list[Emitted]) -> str:
    return ", ".join(field.path[-1] for field in group)


def _column_change(verb: Verb, place: str, group: list[Emitted]) -> Change:
    is_added = verb is Verb.ADDED
    return Change(
        Aspect.SCHEMA,
        verb,
        f"columns of {place}: {_listed(group)}",
        "the table must have them" if is_added else "they stay empty from now on",
        Risk.CRITICAL if is_added else Risk.MEDIUM,
        "a migration before the first run; old rows keep NULL"
        if is_added
        else "see who reads them, and keep the columns for old rows",
        needs_approval=True,
    )


def _field_change(verb: Verb, place: str, group: list[Emitted]) -> Change:
    is_added = verb is Verb.ADDED
    is_in_table = group[0].is_row
    where = f"inside the JSON column {place}" if is_in_table else f"in {place}"
    return Change(
        Aspect.METRICS,
        verb,
        f"fields of {place}: {_listed(group)}",
        f"{len(group)} {'more' if is_added else 'fewer'} {where}",
        Risk.LOW if is_added else Risk.CRITICAL,
        "backwards compatible: readers that do not know them go on, old rows lack them"
        if is_added
        else "tell whoever reads them, or go on writing them",
        needs_approval=not is_added,
    )
