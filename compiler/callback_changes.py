"""What changed in the classes a trainer calls: constructors, hooks, methods, and what they keep."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from podproof.compiler.anatomy import HOOKS, Anatomy, ClassAnatomy, Definition, own_calls
from podproof.compiler.changes import Aspect, Change, Risk, Verb
from podproof.compiler.judging import Judgement, Reach, broken_calls, callers_of, judged

_CONSTRUCTOR = "__init__"

# Hooks that a trainer calls as often as it evaluates or saves, and not at every step.
_RARE_HOOKS = (
    HOOKS
    - {"on_log", "on_step_begin", "on_step_end", "on_substep_end"}
    - {
        "on_pre_optimizer_step",
        "on_optimizer_step",
        "on_prediction_step",
    }
)
_GROWERS = frozenset({"append", "appendleft", "extend", "add", "setdefault", "update"})
_EMPTIERS = frozenset({"clear", "pop", "popleft", "popitem", "discard", "remove"})
_BOUND = re.compile(r"maxlen=([\w.]+)")


def callback_changes(before: Anatomy, after: Anatomy) -> Iterator[Change]:
    """Yield what changed in every class that a trainer calls on either side."""
    for name in sorted(before.classes.keys() | after.classes.keys()):
        old, new = before.classes.get(name), after.classes.get(name)
        if not any(kind is not None and kind.is_callback for kind in (old, new)):
            continue
        if old is None or new is None:
            yield _whole_class(name, Verb.ADDED if old is None else Verb.REMOVED)
        else:
            yield from _base_change(old, new)
            yield from _method_changes(old, new)
            yield from _state_changes(old, new)


def _whole_class(name: str, verb: Verb) -> Change:
    is_added = verb is Verb.ADDED
    return Change(
        Aspect.API,
        verb,
        name,
        "a class the trainer calls" if is_added else "a class the trainer called is gone",
        Risk.MEDIUM if is_added else Risk.CRITICAL,
        _TEST_HOOKS if is_added else "keep it, or take out whatever registers it",
        needs_approval=True,
    )


def _base_change(old: ClassAnatomy, new: ClassAnatomy) -> Iterator[Change]:
    if old.bases != new.bases:
        yield Change(
            Aspect.BEHAVIOUR,
            Verb.CHANGED,
            f"{new.name} bases",
            f"{', '.join(old.bases) or 'none'} -> {', '.join(new.bases) or 'none'}",
            Risk.MEDIUM,
            _TEST_HOOKS,
            needs_approval=True,
        )


def _method_changes(old: ClassAnatomy, new: ClassAnatomy) -> Iterator[Change]:
    for name in sorted(old.methods.keys() | new.methods.keys()):
        one, other = old.methods.get(name), new.methods.get(name)
        if one is None and other is not None:
            yield _added_method(other, new)
        elif other is None and one is not None:
            yield _removed_method(one)
        elif one is not None and other is not None:
            yield from _signature_change(one, other)
            yield from _body_change(one, other)


def _added_method(method: Definition, owner: ClassAnatomy) -> Change:
    bare = method.name.rpartition(".")[2]
    callers = callers_of({bare}, owner.methods.values())
    by = "the trainer" if bare in HOOKS else ", ".join(callers) or "nobody in its class"
    return Change(
        Aspect.BEHAVIOUR,
        Verb.ADDED,
        method.name,
        f"a new {'hook' if bare in HOOKS else 'method'} of {method.lines} lines, called by {by}",
        Risk.MEDIUM,
        "test it alone: values that are missing, NaN or equal, and what it does when it raises",
        needs_approval=True,
    )


def _removed_method(method: Definition) -> Change:
    is_hook = method.name.rpartition(".")[2] in HOOKS
    what = "what it did at that event is done no more" if is_hook else "its callers must do without"
    return Change(
        Aspect.BEHAVIOUR,
        Verb.REMOVED,
        method.name,
        f"a {'hook' if is_hook else 'method'} is gone: {what}",
        Risk.CRITICAL if is_hook else Risk.MEDIUM,
        "read what it did, and say where that is done now",
        needs_approval=True,
    )


def _signature_change(old: Definition, new: Definition) -> Iterator[Change]:
    if old.signature == new.signature:
        return
    problems = broken_calls(old, new)
    bare = new.name.rpartition(".")[2]
    is_public = bare == _CONSTRUCTOR or not bare.startswith("_")
    why = "; ".join(f"{problem.where} {problem.what}" for problem in problems)
    yield Change(
        Aspect.API if is_public else Aspect.BEHAVIOUR,
        Verb.CHANGED,
        f"{new.name} parameters",
        f"{old.signature} -> {new.signature}" + (f": {why}" if why else ""),
        (Risk.CRITICAL if is_public else Risk.MEDIUM) if problems else Risk.LOW,
        "change every caller with it, or give new parameters a default"
        if problems
        else "every call that worked still works",
        needs_approval=bool(problems),
    )


def _body_change(old: Definition, new: Definition) -> Iterator[Change]:
    if old.entries == new.entries:
        return
    judgement = judged(old, new)
    reaches = {judgement.reach, judged(new, old).reach}
    if new.name.endswith(f".{_CONSTRUCTOR}") and Reach.BOOKKEEPING in reaches:
        return  # what it keeps from now on, or no more, is told as state
    is_light = judgement.reach is Reach.BOOKKEEPING
    yield Change(
        Aspect.BEHAVIOUR,
        Verb.CHANGED,
        new.name,
        f"{judgement.reach.value}: {judgement.words}",
        Risk.LOW if is_light else Risk.MEDIUM,
        _mitigation(new, judgement),
        needs_approval=not is_light,
    )


def _mitigation(method: Definition, judgement: Judgement) -> str:
    if judgement.reach is Reach.BOOKKEEPING:
        return "everything it did it still does, and it calls nothing outside of its own values"
    return _TEST_HOOKS if method.name.rpartition(".")[2] in HOOKS else "test it with its callers"


_TEST_HOOKS = (
    "integration tests: simulated runs (podproof verify, gate dryrun) and one small training"
)


@dataclass(frozen=True)
class _Kept:
    """An attribute of an object: its value as written, where it grows, and where it is emptied."""

    source: str
    grows_in: frozenset[str]
    emptied_in: frozenset[str]

    @property
    def bound(self) -> str | None:
        found = _BOUND.search(self.source)
        return found[1] if found and found[1] != "None" else None

    @property
    def is_container(self) -> bool:
        return self.bound is not None or bool(self.grows_in)


def _state_changes(old: ClassAnatomy, new: ClassAnatomy) -> Iterator[Change]:
    before, after = _kept_by(old), _kept_by(new)
    yield from _state_rows(new.name, Verb.ADDED, after, after.keys() - before.keys())
    yield from _state_rows(new.name, Verb.REMOVED, before, before.keys() - after.keys())


def _state_rows(
    owner: str, verb: Verb, kept: Mapping[str, _Kept], names: set[str]
) -> Iterator[Change]:
    plain = sorted(name for name in names if not kept[name].is_container)
    if plain:
        detail = "keeps one value" if len(plain) == 1 else f"keeps {len(plain)} values"
        mitigation = "internal: nothing outside the class reads them"
        name = f"{owner}: {', '.join(plain)}"
        yield Change(Aspect.STATE, verb, name, detail, Risk.LOW, mitigation, needs_approval=False)
    for name in sorted(names - set(plain)):
        yield _container_row(f"{owner}.{name}", verb, kept[name])


def _container_row(name: str, verb: Verb, kept: _Kept) -> Change:
    if kept.bound is not None:
        detail, risk = f"keeps at most {kept.bound} entries", Risk.LOW
        mitigation = "memory is bounded, a few kilobytes"
    elif kept.grows_in <= _RARE_HOOKS:
        where = ", ".join(sorted(kept.grows_in))
        detail, risk = f"grows in {where}", Risk.LOW
        mitigation = "as many entries as there are evaluations or saves"
    elif kept.emptied_in:
        where = ", ".join(sorted(kept.emptied_in))
        detail, risk = f"grows, and is emptied in {where}", Risk.LOW
        mitigation = "see that it is emptied often enough"
    else:
        where = ", ".join(sorted(kept.grows_in))
        detail, risk = f"grows in {where} without a bound", Risk.MEDIUM
        mitigation = "give it a bound, such as deque(maxlen=100)"
    is_risky = risk is not Risk.LOW and verb is Verb.ADDED
    risk = risk if verb is Verb.ADDED else Risk.LOW
    return Change(Aspect.STATE, verb, name, detail, risk, mitigation, needs_approval=is_risky)


def _kept_by(kind: ClassAnatomy) -> dict[str, _Kept]:
    """Return every attribute that a method assigns, with where it grows and where it is emptied."""
    sources: dict[str, str] = {}
    growers: dict[str, set[str]] = {}
    emptiers: dict[str, set[str]] = {}
    for bare, method in kind.methods.items():
        block = ast.Module(list(method.nodes), [])
        for name, source in _assigned_attributes(block):
            if name in sources and bare != _CONSTRUCTOR:
                emptiers.setdefault(name, set()).add(bare)
            sources.setdefault(name, source)
        for verbs, found in ((_GROWERS, growers), (_EMPTIERS, emptiers)):
            for name in _attributes_told_to(block, verbs):
                found.setdefault(name, set()).add(bare)
    return {
        name: _Kept(
            source,
            _hooks_reaching(kind, growers.get(name, set())),
            frozenset(emptiers.get(name, set())),
        )
        for name, source in sources.items()
    }


def _assigned_attributes(block: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(block):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        flat = [item for target in targets for item in getattr(target, "elts", [target])]
        for target in flat:
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                value = getattr(node, "value", None)
                yield target.attr, "" if value is None else ast.unparse(value)


def _attributes_told_to(block: ast.Module, verbs: frozenset[str]) -> Iterator[str]:
    """Yield the attributes of which one of these methods is called."""
    for call in own_calls(block):
        function = call.func
        if isinstance(function, ast.Attribute) and function.attr in verbs:
            owner = function.value
            if isinstance(owner, ast.Attribute) and ast.unparse(owner.value) == "self":
                yield owner.attr


def _hooks_reaching(kind: ClassAnatomy, names: set[str]) -> frozenset[str]:
    """Return the hooks that come to one of these methods, by way of methods of the class."""
    reached, before = set(names), set[str]()
    while reached != before:
        before = set(reached)
        callers = callers_of(reached, kind.methods.values())
        reached |= {name.rpartition(".")[2] for name in callers}
    return frozenset(reached & (HOOKS | {_CONSTRUCTOR})) if names else frozenset()
