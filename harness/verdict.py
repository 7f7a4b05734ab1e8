"""What the gates say: one verdict each, and the value that lets a script be launched."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from podproof.compiler.ir import PodScript
from podproof.compiler.throughput import PastRun
from podproof.harness.warm import WarmTrainer
from podproof.runtime.errors import Problem

# Told what is being done, and the share of it that is done, or None where nobody knows.
OnProgress = Callable[[str, float | None], object]

# Processor time, so that a machine busy with other things is no reason to refuse. A gate takes one
# or two seconds: only code that hangs, or a machine 20 times slower, gets here.
BUDGET_S = 30.0


def untold(_what: str, _share: float | None) -> None:
    """Hear of progress and tell nobody."""


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
    what it remembers; without one nothing is remembered. `past_runs` are what runs got done
    before. `approved` is the folder of approved scripts, which need not be there. `warm` is the
    process in which the gates of level full train; several scripts may share it, and without one
    each script starts its own. `on_progress` is told how far a gate is that may take long.
    `budget_s` is the processor time after which a gate that draws examples gives up, and refuses.
    """

    data_roots: tuple[Path, ...] = ()
    home: Path | None = None
    past_runs: tuple[PastRun, ...] = ()
    approved: Path | None = None
    warm: WarmTrainer | None = None
    on_progress: OnProgress = untold
    budget_s: float = BUDGET_S


@contextmanager
def warmed(surroundings: Surroundings) -> Iterator[WarmTrainer]:
    """Yield the warm process of the surroundings, or one of its own that ends with the block."""
    if surroundings.warm is not None:
        yield surroundings.warm
        return
    with WarmTrainer() as warm:
        yield warm


@dataclass(frozen=True)
class GateVerdict:
    """One gate's answer; `summary` is what it checked, `problems` is empty unless refused.

    `details` are the numbers behind the summary, as JSON values, where a gate has any.
    """

    gate: str
    level: Level
    outcome: Outcome
    summary: str
    problems: tuple[Problem, ...]
    seconds: float
    details: Mapping[str, Any] = field(default_factory=dict)


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
