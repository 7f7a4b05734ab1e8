"""What the gates say: one verdict each, and the value that lets a script be launched."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from podproof.compiler.ir import PodScript
from podproof.runtime.errors import Problem

# Processor time, so that a machine busy with other things is no reason to refuse. A gate takes one
# or two seconds: only code that hangs, or a machine 20 times slower, gets here.
BUDGET_S = 30.0


class Level(StrEnum):
    """How much is proven, each level with those before it.

    `static` reads the script, `fast` also runs its scorer and callback, `full` also trains.
    """

    STATIC = "static"
    FAST = "fast"
    FULL = "full"


class Outcome(StrEnum):
    """What a gate said; a skipped gate needs a reason in the config."""

    PASSED = "passed"
    REFUSED = "refused"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Surroundings:
    """What a gate may look at beside the script.

    `data_roots` are the folders in which data files are looked up. `home` is where podproof keeps
    what it remembers; without one nothing is remembered. `budget_s` is the processor time after
    which a gate that draws examples gives up, and refuses.
    """

    data_roots: tuple[Path, ...] = ()
    home: Path | None = None
    budget_s: float = BUDGET_S


@dataclass(frozen=True)
class GateVerdict:
    """One gate's answer; `summary` is what it checked, `problems` is empty unless refused."""

    gate: str
    level: Level
    outcome: Outcome
    summary: str
    problems: tuple[Problem, ...]
    seconds: float


@dataclass(frozen=True)
class Cleared:
    """A script that passed its gates; only `podproof.harness.gates` makes one."""

    script: PodScript
    verdicts: tuple[GateVerdict, ...]


@dataclass(frozen=True)
class Refused:
    """A script, or a config that never became one, with the verdicts that refused it."""

    script: PodScript | None
    verdicts: tuple[GateVerdict, ...]
