"""The callback: scores every evaluation, reports what happens, and never hurts training.

Rules it keeps, each from measured behaviour of the trainer: an exception in a hook would end the
run, so every hook is isolated and its failures are counted and reported; `state` is replaced when
training starts, so it is never kept; evaluation metrics are read in on_log, where they always are;
the train loss is the last logged one; on a resume the history is rebuilt from
`state.log_history`; no hook touches a file or a socket (the reporter's thread does).
"""

import contextlib
import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from podproof.runtime.events import EventKind
from podproof.runtime.plan import Objective, ScorerPlan
from podproof.runtime.readings import LogKind, Reading, read_log
from podproof.runtime.reporter import Report
from podproof.runtime.scorer import (
    SCORE_KEY,
    final_choice,
    observe_log,
    replay_scores,
    trainer_metric,
)
from podproof.runtime.scores import Score, ScoreState
from podproof.runtime.stopping import stop_reason
from podproof.runtime.trend import describe_trend, observe_loss, trend_of

_Hook = TypeVar("_Hook", bound=Callable[..., None])


def _isolated(hook: _Hook) -> _Hook:
    """Keep an exception of a hook away from the trainer; count it and report it once."""

    @functools.wraps(hook)
    def guarded(self: "PodCallback", args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        try:
            hook(self, args, state, control, **kwargs)
        except Exception as error:
            self.note_failure(hook.__name__, error, is_told=state.is_world_process_zero)

    return cast("_Hook", guarded)


@dataclass
class StopRequest:
    """Set by a signal handler, read by the callback at the next step."""

    reason: str | None = None


class PodCallback:
    """The hooks of one run; becomes a TrainerCallback only where a trainer is at hand.

    `report` takes events and does no I/O; `stop` is how a signal handler asks for an orderly end.
    """

    def __init__(self, plan: ScorerPlan, report: Report, stop: StopRequest) -> None:
        """Start with an empty history; on_train_begin rebuilds it when a run is resumed."""
        self.plan = plan
        self.report = report
        self.stop = stop
        self.scores = ScoreState()
        self.trend = trend_of(plan.trend)
        self.choice: Score | None = None
        self.metric = math.nan
        self.failures: Counter[str] = Counter()
        self.stopped_early = False

    @_isolated
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Rebuild score and trend from the log of the run that is resumed, if any."""
        self.scores, _ = replay_scores(state.log_history, self.plan)
        self.trend = trend_of(self.plan.trend)
        for entry in state.log_history:
            self._follow_trend(read_log(entry))
        # A run killed on its way out ends again, after the one step the trainer insists on.
        self._stop_if_due(control)

    @_isolated
    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Fold a train log, score an evaluation, and make the final choice at the summary."""
        reading = read_log({**(logs or {}), "step": state.global_step})
        self.scores, score = observe_log(self.scores, reading, self.plan)
        self._follow_trend(reading)
        if logs and reading.kind is LogKind.TRAIN:
            self._send(state, EventKind.TRAIN_LOG, logs)
            self._stop_if_due(control)
        elif logs and score is not None:
            self._report_score(state, logs, score)
        elif reading.kind is LogKind.SUMMARY and self.plan.objective is Objective.REWARD:
            self._choose_by_reward(args, state)

    @_isolated
    def on_evaluate(
        self,
        args: Any,
        state: Any,
        control: Any,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Make sure the trainer finds a score, and stop when patience has run out.

        The trainer raises KeyError when `metric_for_best_model` is absent from one evaluation, so
        an evaluation that could not be scored gets the metric of the one before it, which is not
        better than the best. So does a further eval set, whose metrics the trainer lays over those
        of the set that was scored.
        """
        if metrics is not None:
            metrics.setdefault(SCORE_KEY, self.metric)
        self._stop_if_due(control)

    @_isolated
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the checkpoint just written; its directory exists by now on rank 0."""
        path = f"{args.output_dir}/checkpoint-{state.global_step}"
        self._send(state, EventKind.CHECKPOINT_SAVED, {"path": path})

    @_isolated
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop within one step when a signal asked for it."""
        if self.stop.reason is not None:
            control.should_save = True
            control.should_training_stop = True

    def note_failure(self, hook: str, error: Exception, *, is_told: bool) -> None:
        """Count a failure inside a hook; report each kind of failure once, on rank 0."""
        what = f"{hook} raised {type(error).__name__}: {error}"
        self.failures[what] += 1
        if is_told and self.failures[what] == 1:
            # The report itself may be what fails; then the count is all that can be kept.
            with contextlib.suppress(Exception):
                self.report(EventKind.NOTICE, body={"what": what, "count": 1})

    def _stop_if_due(self, control: Any) -> None:
        if stop_reason(self.scores, self.trend, self.plan) is not None:
            self.stopped_early = True
            control.should_training_stop = True

    def _follow_trend(self, reading: Reading) -> None:
        # What is no number is as bad a sign as NaN, and no reason to lose the log it came in.
        if reading.kind is LogKind.TRAIN:
            loss = math.nan if reading.loss is None else reading.loss
            self.trend = observe_loss(self.trend, loss)

    def _choose_by_reward(self, args: Any, state: Any) -> None:
        # The last log is the last moment at which the trainer can still be told what to load.
        self.choice = final_choice(replay_scores(state.log_history, self.plan)[1], self.plan)
        if self.choice is not None:
            state.best_global_step = self.choice.step
            state.best_metric = trainer_metric(self.choice)
            state.best_model_checkpoint = f"{args.output_dir}/checkpoint-{self.choice.step}"

    def _report_score(self, state: Any, logs: dict[str, Any], score: Score) -> None:
        # `logs` is the dictionary the trainer compares afterwards; log_history holds a copy, which
        # must carry the score too, so that trainer_state.json tells how a checkpoint was chosen.
        logs[SCORE_KEY] = self.metric = trainer_metric(score)
        if state.log_history:
            state.log_history[-1][SCORE_KEY] = logs[SCORE_KEY]
        self._send(state, EventKind.EVALUATION, self._evaluation_body(score, logs))
        if score.is_best:
            self._send(state, EventKind.NEW_BEST, {"score": score.value})

    def _evaluation_body(self, score: Score, logs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "eval_loss": logs.get("eval_loss", score.loss),
            "score": score.value,
            "checkpoint_score": logs[SCORE_KEY],
            "components": dict(score.components),
            "trend": describe_trend(self.trend).value,
            "metrics": {key: value for key, value in logs.items() if key != SCORE_KEY},
        }

    def _send(self, state: Any, kind: EventKind, body: Mapping[str, Any]) -> None:
        # Every rank folds the same events and decides the same; only rank 0 speaks.
        if state.is_world_process_zero:
            self.report(kind, step=state.global_step, epoch=state.epoch, body=dict(body))
