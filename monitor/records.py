"""What is remembered about a run: its launch, its scores, its ending."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from podproof.compiler.ir import Provider


class LaunchStatus(StrEnum):
    """How far a launch got; it never goes back."""

    INTENDED = "intended"
    CREATED = "created"
    ENDED = "ended"


class RunStatus(StrEnum):
    """Where a run stands.

    `intended`: no pod yet. `pending`: a pod, no training yet. The last eight are endings; of these
    only `preempted` and `failed` can be left, by a later start of the container. `ended`: the pod
    is gone and not one event came here, as with report.sink=none; how it went is not known.
    """

    INTENDED = "intended"
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    STOPPED_EARLY = "stopped_early"
    OUT_OF_TIME = "out_of_time"
    OUT_OF_MONEY = "out_of_money"
    INTERRUPTED = "interrupted"
    PREEMPTED = "preempted"
    FAILED = "failed"
    ENDED = "ended"

    @property
    def is_ending(self) -> bool:
        """Tell whether nothing more happens unless the container starts again."""
        return self not in {RunStatus.INTENDED, RunStatus.PENDING, RunStatus.RUNNING}

    @property
    def is_final(self) -> bool:
        """Tell whether nothing can change this status."""
        return self.is_ending and self not in {
            RunStatus.PREEMPTED,
            RunStatus.FAILED,
            RunStatus.ENDED,
        }


@dataclass(frozen=True)
class LaunchRecord:
    """A pod that somebody meant to start, and what became of it.

    Written before the provider is asked for anything, so that no pod can exist without one.
    Times are seconds since 1970, paths are on the machine that launched.
    """

    run_id: str
    name: str
    provider: Provider
    status: LaunchStatus
    pod_id: str | None
    script_sha256: str
    config_sha256: str
    intended_unix_s: float
    ended_unix_s: float | None = None
    cost_usd_per_h: float | None = None
    log_path: str | None = None
    output_path: str | None = None
    reason: str | None = None
    stop_requested: bool = False


@dataclass(frozen=True)
class PlanFacts:
    """What the script said it was going to do; absent where it did not say."""

    name: str | None = None
    method: str | None = None
    scorer: str | None = None
    config_sha256: str | None = None
    total_steps: int | None = None
    sequences_per_step: int | None = None
    train_rows: int | None = None
    eval_rows: int | None = None


@dataclass(frozen=True)
class ScoredEvaluation:
    """One evaluation: lower scores are better, infinity means it cannot be used.

    `components` are the parts the score is made of; `trend` is the train loss's, in one word.
    """

    step: int
    epoch: float | None
    eval_loss: float | None
    score: float
    components: tuple[tuple[str, float], ...] = ()
    trend: str | None = None

    @property
    def is_usable(self) -> bool:
        """Tell whether this evaluation may ever be the best."""
        return math.isfinite(self.score)


def best_of(evaluations: Iterable[ScoredEvaluation]) -> ScoredEvaluation | None:
    """Return the usable evaluation with the lowest score, the earliest on a tie; None if none."""
    usable = [evaluation for evaluation in evaluations if evaluation.is_usable]
    return min(usable, key=lambda evaluation: (evaluation.score, evaluation.step), default=None)


@dataclass(frozen=True)
class Prediction:
    """What the model answered to one sample prompt; `checks` are what validators measured of it."""

    step: int
    sample: int
    prompt: str
    expected: str
    answer: str
    checks: tuple[tuple[str, float | bool], ...] = ()


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint on the pod's disk; `path` as the pod sees it."""

    step: int
    path: str


@dataclass(frozen=True)
class Delivery:
    """The weights the run was for, where the pod put them, and the sha256 of each file."""

    path: str
    step: int | None
    sha256: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Publication:
    """Where the delivered weights were published: the hub's repository, its commit, its address."""

    repo_id: str
    commit: str
    url: str
    step: int | None


@dataclass(frozen=True)
class NoticeCount:
    """Something worth knowing that did not stop the run, and how often it happened."""

    what: str
    count: int


@dataclass(frozen=True)
class Ending:
    """How the run ended; `problems` are one text each, `reason` says why it was stopped."""

    unix_s: float
    reason: str | None = None
    error: str | None = None
    problems: tuple[str, ...] = ()
    best_step: int | None = None
    final_step: int | None = None


@dataclass(frozen=True)
class RunRecord:
    """All that is known of one run.

    `best` is the evaluation with the lowest score among those reported, the earlier one on a tie;
    `ending.best_step` is the checkpoint that the run itself chose. `predictions` are those of the
    newest evaluation that had any; the store has all. `boots` counts the starts of
    the container. `progress` is between 0 and 1. Times are the pod's clock.
    """

    run_id: str
    status: RunStatus
    launch: LaunchRecord | None = None
    plan: PlanFacts = PlanFacts()
    device: str | None = None
    output: str | None = None
    boots: int = 0
    step: int | None = None
    epoch: float | None = None
    progress: float | None = None
    evaluations: tuple[ScoredEvaluation, ...] = ()
    best: ScoredEvaluation | None = None
    predictions: tuple[Prediction, ...] = ()
    checkpoints: tuple[SavedCheckpoint, ...] = ()
    delivery: Delivery | None = None
    publication: Publication | None = None
    ending: Ending | None = None
    notices: tuple[NoticeCount, ...] = ()
    started_unix_s: float | None = None
    last_event_unix_s: float | None = None


@dataclass(frozen=True)
class RunSummary:
    """One line of the list of runs."""

    run_id: str
    name: str | None
    status: RunStatus
    progress: float | None
    best_score: float | None
    best_step: int | None
    cost_usd_per_h: float | None
    created_unix_s: float | None
    updated_unix_s: float | None
    launch_status: LaunchStatus | None
