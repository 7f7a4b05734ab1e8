"""What changed in what a script needs around it: packages, variables, and room."""

from collections.abc import Iterator, Mapping
from functools import lru_cache

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from podproof.compiler.anatomy import Anatomy
from podproof.compiler.changes import Aspect, Change, Risk, Verb
from podproof.compiler.emitted import VariableRead, variables_read
from podproof.compiler.limits import LIMITS, Limit, Size, pack
from podproof.compiler.sides import Side
from podproof.compiler.wire import wire_form


def pin_changes(before: Side, after: Side) -> Iterator[Change]:
    """Yield what changed in the packages that a script asks for, where both say them."""
    if before.requires_python != after.requires_python:
        detail = f"{before.requires_python} -> {after.requires_python}"
        yield _pin("python", Verb.CHANGED, detail, Risk.MEDIUM, "see that the image has it")
    if before.requirements is None or after.requirements is None:
        return
    one, other = _pins(before.requirements), _pins(after.requirements)
    for name in sorted(one.keys() | other.keys()):
        old, new = one.get(name), other.get(name)
        if old == new:
            continue
        if new is None:
            what = "see that nothing imports it any more"
            yield _pin(name, Verb.REMOVED, str(old), Risk.LOW, what)
        elif old is None:
            what = "one more package to install on every pod, and to trust"
            yield _pin(name, Verb.ADDED, new, Risk.MEDIUM, what)
        else:
            yield _version_change(name, old, new)


def import_changes(before: Side, after: Side, one: Anatomy, other: Anatomy) -> Iterator[Change]:
    """Yield the packages that are imported on one side only and that no pin stands for."""
    pinned = {name for side in (before, after) for name in _pins(side.requirements or ())}
    for name in sorted(one.imports ^ other.imports):
        if canonicalize_name(name) in pinned:
            continue
        is_new = name in other.imports
        yield Change(
            Aspect.ENVIRONMENT,
            Verb.ADDED if is_new else Verb.REMOVED,
            f"import {name}",
            "neither standard library nor pinned: the pod may not have it" if is_new else "",
            Risk.CRITICAL if is_new else Risk.LOW,
            "embed the code in the script, or pin the package" if is_new else "nothing needs it",
            needs_approval=is_new,
        )


def variable_changes(before: Side, after: Side, one: Anatomy, other: Anatomy) -> Iterator[Change]:
    """Yield what changed in the variables a script reads, and in those its pod gives it."""
    read_before, read_after = variables_read(one), variables_read(other)
    given = _given(after)
    for name in sorted(read_before.keys() | read_after.keys()):
        change = _read_change(name, read_before.get(name), read_after.get(name), given)
        if change is not None:
            yield change
    if before.pod is None or after.pod is None:
        return
    old_given = _given(before)
    for name in sorted(old_given.keys() | given.keys()):
        old, new = old_given.get(name), given.get(name)
        if old != new:
            yield _given_change(name, old, new, read_after.get(name))


def size_changes(before: Side, after: Side) -> Iterator[Change]:
    """Yield how the size of the script changed, and whether it comes near a limit.

    A few other characters in the same number of lines are no change of size.
    """
    lines = [side.text.count("\n") for side in (before, after)]
    sizes = [len(side.text.encode()) for side in (before, after)]
    if lines[0] == lines[1] and abs(sizes[1] - sizes[0]) <= _FEW_BYTES:
        return
    rooms: list[tuple[int, int, Limit]] = [(sizes[0], sizes[1], LIMITS[Size.SCRIPT])]
    told = [
        f"{lines[0]:,} -> {lines[1]:,} lines ({lines[1] - lines[0]:+,})",
        f"{sizes[0]:,} -> {sizes[1]:,} bytes",
    ]
    if before.plan is not None and after.plan is not None:
        packed = [_packed_size(side.text) for side in (before, after)]
        rooms.append((packed[0], packed[1], LIMITS[Size.PAYLOAD]))
        told.append(f"a payload of {packed[0]:,} -> {packed[1]:,} characters")
    is_over = any(new > limit.hard for _, new, limit in rooms)
    # What was near before, and was approved so, is no news.
    is_near = any(old <= limit.soft < new for old, new, limit in rooms)
    risk = Risk.CRITICAL if is_over else Risk.MEDIUM if is_near else Risk.LOW
    yield Change(
        Aspect.SIZE,
        Verb.CHANGED,
        "script",
        ", ".join(told),
        risk,
        "the limit is " + ", ".join(f"{limit.hard:,} {limit.unit}" for _, _, limit in rooms),
        needs_approval=risk is not Risk.LOW,
    )


_FEW_BYTES = 1_000


@lru_cache(maxsize=4)
def _packed_size(text: str) -> int:
    return len(pack(wire_form(text)))


def _pins(requirements: tuple[str, ...]) -> dict[str, str]:
    pins = {}
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            pins[text] = text
        else:
            pins[canonicalize_name(requirement.name)] = str(requirement.specifier) or "any version"
    return pins


def _version_change(name: str, old: str, new: str) -> Change:
    is_patch = _release(old)[:2] == _release(new)[:2] != ()
    what = "read its release notes, and run podproof verify: gates api and dryrun"
    return _pin(name, Verb.CHANGED, f"{old} -> {new}", Risk.LOW if is_patch else Risk.MEDIUM, what)


def _release(specifier: str) -> tuple[int, ...]:
    try:
        return Version(specifier.removeprefix("==")).release
    except InvalidVersion:
        return ()


def _pin(name: str, verb: Verb, detail: str, risk: Risk, mitigation: str) -> Change:
    is_told_only = risk is Risk.LOW
    return Change(
        Aspect.PINS, verb, name, detail, risk, mitigation, needs_approval=not is_told_only
    )


def _read_change(
    name: str, old: VariableRead | None, new: VariableRead | None, given: Mapping[str, str]
) -> Change | None:
    if old == new:
        return None
    verb = Verb.ADDED if old is None else Verb.REMOVED if new is None else Verb.CHANGED
    is_lacking = new is not None and new.is_required and name not in given
    detail = {None: "", True: "the script fails without it", False: "has a default"}
    return Change(
        Aspect.ENVIRONMENT,
        verb,
        f"reads {name}",
        detail[None if new is None else new.is_required],
        Risk.CRITICAL if is_lacking else Risk.LOW,
        f"set pod.env.{name} or pod.secrets.{name}" if is_lacking else "nothing has to be set",
        needs_approval=is_lacking,
    )


def _given(side: Side) -> dict[str, str]:
    """Return the variables a pod is given, with what can be told of their values."""
    pod = side.pod or {}
    env = {str(key): f"value of sha256 {value}" for key, value in dict(pod.get("env", {})).items()}
    secrets = {str(key): f"secret {value}" for key, value in dict(pod.get("secrets", {})).items()}
    return {**env, **secrets}


def _given_change(name: str, old: str | None, new: str | None, read: VariableRead | None) -> Change:
    verb = Verb.ADDED if old is None else Verb.REMOVED if new is None else Verb.CHANGED
    is_missed = new is None and read is not None and read.is_required
    risk = Risk.LOW if verb is Verb.ADDED else Risk.MEDIUM
    return Change(
        Aspect.ENVIRONMENT,
        verb,
        f"gives {name}",
        " -> ".join(value for value in (old, new) if value is not None),
        Risk.CRITICAL if is_missed else risk,
        "the script cannot do without it" if is_missed else "see what reads it, libraries too",
        needs_approval=verb is not Verb.ADDED,
    )
