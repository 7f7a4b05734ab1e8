"""The callback: scores every evaluation, reports what happens, and never hurts training.

Rules it keeps, each from measured behaviour of the trainer: an exception in a hook would end the
run, so every hook is isolated and its failures are counted and reported; `state` is replaced when
training starts, so it is never kept; evaluation metrics are read in on_log, where they always are;
train logs are kept as they come and folded when somebody asks, which a hook can afford and a cold
cache would make it pay for; on a resume the history is rebuilt from
`state.log_history`; no hook touches a file or a socket (the reporter's thread does).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from podproof.runtime.evaluation_body import EvaluationBody
from podproof.runtime.events import EventKind
from podproof.runtime.hooks import IsolatedHooks, isolated
from podproof.runtime.plan import Objective, ScorerPlan
from podproof.runtime.readings import LogKind, Reading, is_train_log, read_log, read_train_loss
from podproof.runtime.reporter import Report
from podproof.runtime.scorer import (
    SCORE_KEY,
    final_choice,
    observe_log,
    observe_train_losses,
    replay_scores,
    trainer_metric,
)
from podproof.runtime.scores import Score, ScoreState
from podproof.runtime.stopping import StopReason, stop_reason
from podproof.runtime.trend import LossTrend, observe_losses, trend_of

# So many train logs are kept before they are folded, in a run that nobody asks for its score.
CALLBACK_UNREAD_LOGS = 8

# So many losses wait to be seen by the trend, which a hook asks only where the plan may stop by it.
CALLBACK_UNSEEN_LOSSES = 64


@dataclass
class StopRequest:
    """Set by a signal handler, read by the trainer at the end of each step.

    While `is_awaited` a signal only leaves its name; at all other times there is nothing to save,
    and it ends the run at once.
    """

    reason: str | None = None
    is_awaited: bool = False


class PodCallback(IsolatedHooks):
    """The hooks of one run; becomes a TrainerCallback only where a trainer is at hand.

    `report` takes events and does no I/O; `stop` is how a signal handler asks for an orderly end.
    """

    def __init__(self, plan: ScorerPlan, report: Report, stop: StopRequest) -> None:
        """Start with an empty history; on_train_begin rebuilds it when a run is resumed."""
        super().__init__(report)
        self.plan = plan
        self.stop = stop
        self._forget()

    @property
    def scores(self) -> ScoreState:
        """Return what the scorer remembers of all logs so far."""
        self._catch_up()
        return self._scores

    @property
    def trend(self) -> LossTrend:
        """Return the trend of all train logs so far."""
        self._catch_up()
        self._see_losses()
        return self._trend

    @isolated
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Rebuild score and trend from the log of the run that is resumed, if any.

        The same callback may begin again in one process, after running out of memory.
        """
        self._forget()
        for entry in state.log_history:
            self._fold_kept(entry)
        self._put_books_right(state)
        # A run that was killed on its way out ends again.
        self._stop_if_due(control)

    @isolated
    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Keep a train log, score an evaluation, and make the final choice at the summary.

        An evaluation of a step that was scored already, as after a restart, is not scored again.
        """
        if not logs:
            return
        if is_train_log(logs):
            # A copy: callbacks after this one may take something out of it.
            kept = dict(logs)
            self._unread.append(kept)
            self._send(state, EventKind.TRAIN_LOG, kept)
            if self._trend.is_counting:
                self._stop_if_due(control)
            elif len(self._unread) >= CALLBACK_UNREAD_LOGS:
                self._catch_up()
            return
        self._catch_up()
        reading = read_log(logs, state.global_step)
        score = self._fold(reading)
        if reading.kind is LogKind.EVALUATION:
            self._show_score(state, logs)
            if score is not None:
                self._tell_score(state, control, reading, score, logs)
        elif reading.kind is LogKind.SUMMARY and self.plan.objective is Objective.REWARD:
            self._choose_by_reward(args, state)

    @isolated
    def on_evaluate(
        self,
        args: Any,
        state: Any,
        control: Any,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Make sure the trainer finds a score, and stop when patience has run out.

        The trainer raises KeyError when `metric_for_best_model` is absent from one evaluation.
        """
        if metrics is not None:
            metrics.setdefault(SCORE_KEY, self._metric_at(state.global_step))
        self._stop_if_due(control)

    @isolated
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the checkpoint just written; its directory exists by now on rank 0."""
        path = f"{args.output_dir}/checkpoint-{state.global_step}"
        self._send(state, EventKind.CHECKPOINT_SAVED, {"path": path})

    @isolated
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop within one step when a signal asked for it."""
        if self.stop.reason is not None:
            control.should_save = True
            control.should_training_stop = True

    @isolated
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell what the hooks cost and how often they failed; a run that breaks off tells not."""
        self._send(state, EventKind.HOOK_COST, self.costs_body())

    def _forget(self) -> None:
        self._scores = ScoreState()
        self._trend = trend_of(self.plan.trend)
        self._unread: list[Mapping[str, Any]] = []
        self._losses: list[float | None] = []
        self.choice: Score | None = None
        self.stop_reason: StopReason | None = None
        # The step that was scored last, and what the trainer compares of it.
        self.scored: tuple[int | None, float] = (None, math.nan)

    def _catch_up(self) -> None:
        unread, self._unread = self._unread, []
        if unread:
            self._fold_losses([read_train_loss(entry) for entry in unread])

    def _see_losses(self) -> None:
        self._trend = observe_losses(self._trend, self._losses)
        self._losses.clear()

    def _fold_losses(self, losses: Sequence[float | None]) -> None:
        self._losses += losses
        if len(self._losses) >= CALLBACK_UNSEEN_LOSSES:
            self._see_losses()
        self._scores = observe_train_losses(self._scores, losses, self.plan)

    def _fold_kept(self, entry: Mapping[str, Any]) -> None:
        """Fold a log of the past; one that cannot be folded is counted, and costs no other."""
        try:
            self._fold(read_log(entry))
        except Exception as error:
            self.note_failure("on_log", error, is_told=False)

    def _fold(self, reading: Reading) -> Score | None:
        """Fold one log, as it comes or from the history; return the score of an evaluation."""
        if reading.kind is LogKind.TRAIN:
            self._fold_losses((reading.loss,))
            return None
        self._scores, score = observe_log(self._scores, reading, self.plan)
        if score is not None:
            self.scored = (reading.step, trainer_metric(score))
        return score

    def _put_books_right(self, state: Any) -> None:
        """Have the trainer compare with the best score of its own history, and nothing else.

        A checkpoint written under another metric brings that metric's best value, which no score
        of ours might ever beat. The trainer looks up the best checkpoint when it next saves one.
        """
        step = self._scores.best_step
        best = None if step is None else -self._scores.best_score
        if (state.best_global_step, state.best_metric) != (step, best):
            state.best_global_step, state.best_metric = step, best
            state.best_model_checkpoint = None

    def _metric_at(self, step: int) -> float:
        """Return the score of this step for the trainer: NaN, which is never best, without one.

        Each of several eval sets gets that of the set that is scored, since the trainer lays their
        metrics over each other.
        """
        scored_step, metric = self.scored
        return metric if step == scored_step else math.nan

    def _stop_if_due(self, control: Any) -> None:
        # A trend that does not count is never over.
        trend = self.trend if self._trend.is_counting else self._trend
        reason = stop_reason(self.scores, trend, self.plan)
        if reason is not None:
            self.stop_reason = reason
            control.should_training_stop = True

    def _choose_by_reward(self, args: Any, state: Any) -> None:
        # The last log is the last moment at which the trainer can still be told what to load.
        self.choice = final_choice(replay_scores(state.log_history, self.plan)[1], self.plan)
        if self.choice is not None:
            state.best_global_step = self.choice.step
            state.best_metric = trainer_metric(self.choice)
            state.best_model_checkpoint = f"{args.output_dir}/checkpoint-{self.choice.step}"

    def _show_score(self, state: Any, logs: dict[str, Any]) -> None:
        # `logs` is the dictionary the trainer compares afterwards; log_history holds a copy, which
        # must carry the score too, so that trainer_state.json tells how a checkpoint was chosen.
        logs[SCORE_KEY] = self._metric_at(state.global_step)
        if state.log_history:
            state.log_history[-1][SCORE_KEY] = logs[SCORE_KEY]

    def _tell_score(
        self, state: Any, control: Any, reading: Reading, score: Score, logs: Mapping[str, Any]
    ) -> None:
        # The trainer compares no evaluation that was not due: that of eval_on_start.
        if not control.should_evaluate:
            self._put_books_right(state)
        trend = (self._trend, tuple(self._losses))
        body = EvaluationBody(reading.eval_set, score, trend, dict(logs))
        self._send(state, EventKind.EVALUATION, body)
        if score.is_best:
            self._send(state, EventKind.NEW_BEST, {"score": score.value})
