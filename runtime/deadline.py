"""When a run has to stop so that it can still save, score, deliver and say so in time.

The boot program names the moment at which it ends the script. How long things take is measured as
the run goes, and the run stops while there is room for what has to follow:

    deliver   = floor + 1.5 x (saves that the delivery is worth) x (longest save)
    wrap up   = 1.5 x (longest evaluation + longest save) + deliver
    stop when   time left <= 1.5 x step + wrap up       at the end of a step
    evaluate    once more unless less than `wrap up` is left; the best so far is on disk anyway

Any step may be followed by an evaluation that was due, so room for one is always kept.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from podproof.runtime.errors import BadPlan, Problem
from podproof.runtime.events import EventKind
from podproof.runtime.plan import PublishTo

# What is not learnt: telling the collector the rest takes up to 30 s, and the process has to end.
# An upload needs more. In short runs a tenth of the time has to do, or nothing would be trained.
_DEADLINE_FLOOR_S = {PublishTo.NONE: 40.0, PublishTo.DIR: 45.0, PublishTo.HUB: 240.0}
_DEADLINE_FLOOR_SHARE = 0.1
# A delivery reads the weights three times and writes them once; a save writes the optimizer too.
_DEADLINE_DELIVERY_SAVES = {PublishTo.NONE: 0.0, PublishTo.DIR: 1.0, PublishTo.HUB: 5.0}
_DEADLINE_SAFETY = 1.5
# What an evaluation with its save is taken to last until one was seen.
_DEADLINE_UNSEEN_S = 600.0
# A first step compiles and warms up; its length is forgotten by this factor a step.
_DEADLINE_FORGETTING = 0.9


class DeadlineLimit(StrEnum):
    """What the deadline comes from: pod.max_hours, or pod.max_usd at the price of the pod."""

    TIME = "time"
    MONEY = "money"


DEADLINE_ENDINGS = {
    DeadlineLimit.TIME: EventKind.OUT_OF_TIME,
    DeadlineLimit.MONEY: EventKind.OUT_OF_MONEY,
}


@dataclass(frozen=True)
class DeadlineCosts:
    """The seconds that a step, an evaluation and a save took; None for what was not seen yet."""

    step_s: float = 0.0
    evaluation_s: float | None = None
    save_s: float | None = None

    def with_step(self, seconds: float) -> "DeadlineCosts":
        """Return the costs after one more step: the longest of late.

        >>> DeadlineCosts(step_s=100.0).with_step(2.0).step_s
        90.0
        """
        return replace(self, step_s=max(seconds, self.step_s * _DEADLINE_FORGETTING))

    def with_evaluation(self, seconds: float) -> "DeadlineCosts":
        """Return the costs after one more evaluation: the longest."""
        return replace(self, evaluation_s=max(seconds, self.evaluation_s or 0.0))

    def with_save(self, seconds: float) -> "DeadlineCosts":
        """Return the costs after one more save: the longest."""
        return replace(self, save_s=max(seconds, self.save_s or 0.0))


@dataclass(frozen=True)
class Deadline:
    """How much time there was at the start, in seconds, and what the end of the run has to do."""

    total_s: float
    publish_to: PublishTo = PublishTo.DIR

    def deliver_s(self, costs: DeadlineCosts) -> float:
        """Return how long the rest takes once nothing is trained or evaluated any more.

        >>> Deadline(3600.0).deliver_s(DeadlineCosts(save_s=10.0))
        60.0
        """
        floor_s = min(_DEADLINE_FLOOR_S[self.publish_to], self.total_s * _DEADLINE_FLOOR_SHARE)
        saves = _DEADLINE_DELIVERY_SAVES[self.publish_to]
        return floor_s + _DEADLINE_SAFETY * saves * (costs.save_s or 0.0)

    def wrap_up_s(self, costs: DeadlineCosts) -> float:
        """Return how long one more evaluation, its save, and the delivery take.

        >>> Deadline(3600.0).wrap_up_s(DeadlineCosts(evaluation_s=60.0, save_s=10.0))
        165.0
        """
        unseen_s = min(_DEADLINE_UNSEEN_S, self.total_s * _DEADLINE_FLOOR_SHARE)
        seen = [seconds for seconds in (costs.evaluation_s, costs.save_s) if seconds is not None]
        evaluation_s = _DEADLINE_SAFETY * sum(seen) if seen else unseen_s
        return evaluation_s + self.deliver_s(costs)

    def is_due(self, left_s: float, costs: DeadlineCosts) -> bool:
        """Tell whether to stop now, `left_s` before the end.

        >>> costs = DeadlineCosts(step_s=2.0, evaluation_s=60.0, save_s=10.0)
        >>> Deadline(3600.0).is_due(169.0, costs), Deadline(3600.0).is_due(168.0, costs)
        (False, True)
        """
        return left_s <= _DEADLINE_SAFETY * costs.step_s + self.wrap_up_s(costs)


class DeadlineWatch:
    """Hooks that measure, and stop the training in time; without a deadline they never do.

    Only the first rank decides, since clocks differ; what it asks of `control` the others follow.
    The wall clock is read once. From then on the monotonic clock counts, which nobody sets.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        publish_to: PublishTo,
        *,
        wall_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read PODPROOF_DEADLINE_UNIX_S and PODPROOF_LIMIT, which the boot program sets.

        Raise BadPlan for what they cannot hold.
        """
        self._monotonic_s = monotonic_s
        deadline = environ.get("PODPROOF_DEADLINE_UNIX_S") or "inf"
        limit = environ.get("PODPROOF_LIMIT") or "time"
        try:
            self._limit = DeadlineLimit(limit)
            total_s = float(deadline) - wall_s()
        except ValueError as error:
            way_out = "leave it to the boot program, or give seconds since 1970, and time or money"
            raise BadPlan(Problem("PODPROOF_DEADLINE_UNIX_S", str(error), way_out)) from error
        self._end_s = monotonic_s() + total_s
        self._deadline = Deadline(max(0.0, total_s), publish_to)
        self._costs = DeadlineCosts()
        self._mark_s = monotonic_s()
        self.reason: str | None = None

    @property
    def left_s(self) -> float:
        """Return the seconds until the boot program ends the script; below 0 it is doing so."""
        return self._end_s - self._monotonic_s()

    @property
    def ending(self) -> EventKind | None:
        """Return how the run ends when the deadline has ended it; None when it has not."""
        is_over = self.reason is not None or self.left_s <= 0
        return DEADLINE_ENDINGS[self._limit] if is_over else None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start to measure."""
        self._mark_s = self._monotonic_s()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop when it is time, with one more evaluation where there is room for it."""
        self._costs = self._costs.with_step(self._lap_s())
        left_s = self.left_s
        is_over = control.should_training_stop or not state.is_world_process_zero
        if is_over or not self._deadline.is_due(left_s, self._costs):
            return
        self.reason = f"{left_s:.0f} s before the deadline"
        control.should_training_stop = True
        if left_s >= self._deadline.wrap_up_s(self._costs):
            control.should_evaluate |= args.eval_strategy != "no"
            control.should_save = True
        else:
            control.should_evaluate = control.should_save = False

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure."""
        self._costs = self._costs.with_evaluation(self._lap_s())

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure."""
        self._costs = self._costs.with_save(self._lap_s())

    def _lap_s(self) -> float:
        now_s = self._monotonic_s()
        lap_s, self._mark_s = now_s - self._mark_s, now_s
        return lap_s
