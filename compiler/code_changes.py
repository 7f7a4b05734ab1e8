"""What changed in the code around the callback: functions, records, constants, whole modules.

Code of ours is told by its module, other code function by function.
"""

import itertools
import re
from collections.abc import Iterator, Mapping

from podproof.compiler.anatomy import Anatomy, Definition, anatomy_of
from podproof.compiler.changes import Aspect, Change, Risk, Verb
from podproof.compiler.judging import Reach, callers_of, judged
from podproof.compiler.limits import LIMITS, Size
from podproof.compiler.script import runtime_sources

# Where the choice of a checkpoint is made.
_SCORING_MODULES = {"scorer", "scores", "own_scorer", "readings"}
_TOLD_NAMES = 3
_ARGUMENT_CLASS = re.compile(r"\w*(Config|TrainingArguments)\(")


def module_changes(before: Anatomy, after: Anatomy) -> Iterator[Change]:
    """Yield the modules of ours that only one side has."""
    for verb, side, other in ((Verb.REMOVED, before, after), (Verb.ADDED, after, before)):
        for name in sorted(side.modules - other.modules):
            yield _whole_module(name, verb, side)


def code_changes(before: Anatomy, after: Anatomy) -> Iterator[Change]:
    """Yield what changed outside of the classes that a trainer calls."""
    one, other = _loose(before), _loose(after)
    yield from _grouped(Verb.ADDED, _only_in(other, one), after)
    yield from _grouped(Verb.REMOVED, _only_in(one, other), before)
    yield from _changed_functions(one, other)
    yield from _record_changes(before, after)
    yield from _constant_changes(before.constants, after.constants)


def _whole_module(name: str, verb: Verb, side: Anatomy) -> Change:
    is_shipped = _is_shipped(name, side)
    lines = sum(item.lines for item in side.definitions.values() if item.module == name)
    return Change(
        Aspect.CODE,
        verb,
        f"module {name}",
        f"{lines} lines of functions",
        Risk.LOW if is_shipped else Risk.MEDIUM,
        "a part of podproof that the plan asks for, tested with it"
        if is_shipped
        else "read it; podproof verify asks what holds of it",
        needs_approval=not is_shipped,
    )


def _is_shipped(name: str, side: Anatomy) -> bool:
    """Tell whether the module is word for word the one that this podproof puts into scripts."""
    source = runtime_sources().get(name)
    if source is None:
        return False
    ours = anatomy_of(source).definitions
    theirs = {key: item for key, item in side.definitions.items() if item.module == name}
    return ours.keys() == theirs.keys() and all(
        item.is_same_as(ours[key]) for key, item in theirs.items()
    )


def _loose(anatomy: Anatomy) -> dict[str, Definition]:
    """Return functions, and methods of classes that no trainer calls."""
    methods = {
        method.name: method
        for kind in anatomy.classes.values()
        if not kind.is_callback
        for method in kind.methods.values()
    }
    return {**anatomy.functions, **methods}


def _only_in(some: Mapping[str, Definition], others: Mapping[str, Definition]) -> list[Definition]:
    return [item for name, item in some.items() if name not in others]


def _grouped(verb: Verb, found: list[Definition], side: Anatomy) -> Iterator[Change]:
    for module in sorted({item.module for item in found}):
        group = sorted((item for item in found if item.module == module), key=_by_name)
        names = [item.name for item in group]
        lines = sum(item.lines for item in group)
        bare = {name.rpartition(".")[2] for name in names}
        callers = callers_of(bare, side.definitions.values())
        by = f", called by {told(callers)}" if callers else ""
        yield Change(
            _aspect(module, names),
            verb,
            f"module {module}: {told(names)}" if module else told(names),
            f"{lines} lines of code embedded{by}" if verb is Verb.ADDED else f"{lines} lines{by}",
            Risk.MEDIUM,
            _size_mitigation() if verb is Verb.ADDED else "see that nothing needs it any more",
            needs_approval=True,
        )


def _size_mitigation() -> str:
    limit = LIMITS[Size.SCRIPT].soft
    return f"test the size limits (podproof verify, gate size; {limit:,} bytes), and the code alone"


def _changed_functions(
    one: Mapping[str, Definition], other: Mapping[str, Definition]
) -> Iterator[Change]:
    """Yield a change for each function, those of a module of ours in one."""
    pairs = [(one[name], other[name]) for name in sorted(one.keys() & other.keys())]
    pairs = [(old, new) for old, new in pairs if not old.is_same_as(new)]
    for module in sorted({new.module for _, new in pairs}):
        group = [(old, new) for old, new in pairs if new.module == module]
        if module:
            yield _changed_together(module, group)
        else:
            yield from (_changed_together("", [pair]) for pair in group)


def _changed_together(module: str, pairs: list[tuple[Definition, Definition]]) -> Change:
    names = [new.name for _, new in pairs]
    is_light = all(_is_light(old, new) for old, new in pairs)
    words = [_in_words(old, new) for old, new in pairs]
    if len(pairs) > 1:
        words = [f"{name} {what}" for name, what in zip(names, words, strict=True)]
    rest = f"; and {len(words) - _TOLD_NAMES} more" if len(words) > _TOLD_NAMES else ""
    return Change(
        _aspect(module, names),
        Verb.CHANGED,
        f"module {module}: {told(names)}" if module else told(names),
        "; ".join(words[:_TOLD_NAMES]) + rest,
        Risk.LOW if is_light else Risk.MEDIUM,
        "nothing it did is gone" if is_light else "test it, and read what calls it",
        needs_approval=not is_light,
    )


def _is_light(old: Definition, new: Definition) -> bool:
    is_same_call = old.signature == new.signature
    return is_same_call and judged(old, new).reach is Reach.BOOKKEEPING


def _in_words(old: Definition, new: Definition) -> str:
    judgement = judged(old, new)
    signature = f"{old.signature} -> {new.signature}, " if old.signature != new.signature else ""
    return f"{signature}{judgement.reach.value}: {judgement.words}"


def _record_changes(before: Anatomy, after: Anatomy) -> Iterator[Change]:
    for name in sorted(before.classes.keys() | after.classes.keys()):
        old, new = before.classes.get(name), after.classes.get(name)
        kinds = [kind for kind in (old, new) if kind is not None]
        if any(kind.is_callback for kind in kinds) and len(kinds) == 1:
            continue  # told as a class that the trainer calls
        if old is None or new is None:
            fields = told([field for kind in kinds for field in kind.fields]) or "no fields"
            yield _record_change(_verb(old, new), f"class {name}", fields, is_read=False)
            continue
        if old.bases != new.bases and not old.is_callback:
            detail = f"{', '.join(old.bases) or 'none'} -> {', '.join(new.bases) or 'none'}"
            yield _record_change(Verb.CHANGED, f"{name} bases", detail, is_read=False)
        yield from _field_changes(name, old.fields, new.fields)


def _field_changes(owner: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    for field in sorted(old.keys() | new.keys()):
        one, other = old.get(field), new.get(field)
        if one == other:
            continue
        verb = _verb(one, other)
        detail = " -> ".join(value for value in (one, other) if value is not None)
        is_read = owner in {"Event", "EventKind"} and verb is not Verb.ADDED
        yield _record_change(verb, f"{owner}.{field}", detail, is_read=is_read)


def _verb(old: object, new: object) -> Verb:
    if old is None:
        return Verb.ADDED
    return Verb.REMOVED if new is None else Verb.CHANGED


def _record_change(verb: Verb, name: str, detail: str, *, is_read: bool) -> Change:
    is_event = name.startswith(("Event.", "EventKind."))
    risk = Risk.CRITICAL if is_read else Risk.LOW if verb is Verb.ADDED else Risk.MEDIUM
    mitigation = (
        "whoever reads it must learn of it first" if is_read else "see who makes and reads it"
    )
    if verb is Verb.ADDED:
        mitigation = "nobody has to know it"
    return Change(
        Aspect.METRICS if is_event else Aspect.CODE,
        verb,
        name,
        detail,
        risk,
        mitigation,
        needs_approval=verb is not Verb.ADDED,
    )


def _constant_changes(one: Mapping[str, str], other: Mapping[str, str]) -> Iterator[Change]:
    # The arguments of a trainer are told one by one, as arguments.
    sides = [
        {name: value for name, value in side.items() if not _ARGUMENT_CLASS.match(value)}
        for side in (one, other)
    ]
    old, new = sides
    yield from _constants_of_one_side(Verb.ADDED, new, new.keys() - old.keys())
    yield from _constants_of_one_side(Verb.REMOVED, old, old.keys() - new.keys())
    for name in sorted(old.keys() & new.keys()):
        if old[name] != new[name]:
            yield Change(
                Aspect.CODE,
                Verb.CHANGED,
                name,
                _apart(old[name], new[name]),
                Risk.MEDIUM,
                "see what depends on it",
                needs_approval=True,
            )


def _constants_of_one_side(
    verb: Verb, values: Mapping[str, str], names: set[str]
) -> Iterator[Change]:
    listed = sorted(names)
    if not listed:
        return
    yield Change(
        Aspect.CODE,
        verb,
        f"constants {told(listed)}",
        ", ".join(_shortened(values[name]) for name in listed[:_TOLD_NAMES]),
        Risk.LOW,
        "what uses them is told with its own code",
        needs_approval=False,
    )


def _apart(old: str, new: str) -> str:
    """Return both values; of long ones what they begin with alike is left out.

    >>> _apart("1", "2"), _apart("x" * 80 + "1", "x" * 80 + "2")
    ('1 -> 2', '...xxxxxxxx1 -> ...xxxxxxxx2')
    """
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False))
    alike = sum(1 for _ in same)
    if max(len(old), len(new)) <= _LONG or alike <= _KEPT:
        return f"{_shortened(old)} -> {_shortened(new)}"
    begin = alike - _KEPT
    return f"...{_shortened(old[begin:])} -> ...{_shortened(new[begin:])}"


def _shortened(value: str) -> str:
    return value if len(value) <= _LONG else f"{value[:_LONG]}..."


_LONG = 60
# So much of what two long values begin with is shown.
_KEPT = 8


def told(names: list[str] | tuple[str, ...]) -> str:
    """Return the first few names, and how many more there are.

    >>> told(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    rest = len(names) - _TOLD_NAMES
    listed = ", ".join(names[:_TOLD_NAMES])
    return f"{listed} and {rest} more" if rest > 0 else listed


def _aspect(module: str, names: list[str]) -> Aspect:
    is_scorer = module in _SCORING_MODULES if module else any("score" in name for name in names)
    return Aspect.SCORER if is_scorer and module else Aspect.CODE


def _by_name(item: Definition) -> str:
    return item.name
