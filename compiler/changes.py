"""What a diff says: changes with their risk, quantities of the run, verdicts."""

from dataclasses import dataclass
from enum import StrEnum


class Risk(StrEnum):
    """How much a change can hurt a run, its results, or whoever reads them."""

    CRITICAL = "CRITICAL"
    MEDIUM = "MEDIUM"
    LOW = "LOW"


class Aspect(StrEnum):
    """What a change is about, in the order in which changes of one risk are told."""

    API = "api"
    BEHAVIOUR = "behaviour"
    CODE = "code"
    SCORER = "scorer"
    SELECTION = "selection rule"
    METRICS = "metrics"
    SCHEMA = "schema"
    STATE = "state"
    ENVIRONMENT = "environment"
    PINS = "pins"
    ARGUMENTS = "arguments"
    CONFIG = "config"
    POD = "pod"
    GATES = "gates"
    SIZE = "size"


class Verb(StrEnum):
    """What happened to the thing between the two sides."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True)
class Change:
    """One named difference.

    `name` is the thing as a person would look it up (a method, a key, a variable), `detail` what
    is different about it, `mitigation` what makes the change safe. Two sides the other way round
    give the same names, with added and removed exchanged.
    """

    aspect: Aspect
    verb: Verb
    name: str
    detail: str
    risk: Risk
    mitigation: str
    needs_approval: bool


@dataclass(frozen=True)
class Quantity:
    """One thing that follows from a config, told in words on both sides."""

    name: str
    before: str
    after: str

    @property
    def is_changed(self) -> bool:
        """Tell whether the two sides differ."""
        return self.before != self.after


@dataclass(frozen=True)
class Verdict:
    """The answer to one question about everything: `is_kept` when nobody else has to change."""

    subject: str
    is_kept: bool
    what: str


@dataclass(frozen=True)
class Difference:
    """Everything that is different between two sides; no change and no quantity when nothing is."""

    before: str
    after: str
    changes: tuple[Change, ...]
    quantities: tuple[Quantity, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def needing_approval(self) -> tuple[Change, ...]:
        """Return the changes somebody has to answer for."""
        return tuple(change for change in self.changes if change.needs_approval)


_RISKS = tuple(Risk)
_ASPECTS = tuple(Aspect)


def in_order(changes: list[Change]) -> tuple[Change, ...]:
    """Return the changes with the gravest first, those of one aspect together."""
    return tuple(sorted(changes, key=_place))


def _place(change: Change) -> tuple[int, int, str, str]:
    risk, aspect = _RISKS.index(change.risk), _ASPECTS.index(change.aspect)
    return risk, aspect, change.name, change.verb.value
