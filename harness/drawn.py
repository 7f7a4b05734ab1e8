"""Runs that Hypothesis draws for a scorer: their logs as a trainer writes them, their scores."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

from hypothesis import reject, strategies as st

from podproof.runtime.plan import ScorerName, ScorerPlan
from podproof.runtime.reader import read_section

Log = list[dict[str, Any]]


class Round(NamedTuple):
    """A part of a run: the train losses logged before an evaluation, and what that measured."""

    train: Sequence[object]
    loss: Any
    margin: object = None
    accuracy: object = None


FINITE = st.floats(-1e6, 1e6, allow_nan=False) | st.sampled_from([0.0, 1e-9, 0.5, 2.0, 20.0])
# What real runs log; hostile sizes alone would hide what happens between nearby losses.
USUAL = st.floats(0.1, 5.0) | st.sampled_from([0.5, 0.52, 1.0, 2.0])
# Exact still when multiplied by 2**20 or 2**-20.
SCALABLE = USUAL | st.floats(1e-60, 1e60) | st.floats(-1e60, -1e-60)
SHARE = st.floats(0.0, 1.0) | st.sampled_from([0.0, 0.5, 1.0])
HOSTILE: st.SearchStrategy[object] = st.sampled_from(
    [
        None,
        math.nan,
        math.inf,
        -math.inf,
        "0.1",
        True,
        False,
        10**400,
        -(10**400),
        [],
        1e308,
        -1e308,
    ]
)


def rounds_of(
    loss: st.SearchStrategy[Any], share: st.SearchStrategy[Any], *, most: int = 6
) -> st.SearchStrategy[list[Round]]:
    """Return the strategy of runs with such losses and margins, and such accuracies."""
    one = st.builds(Round, st.lists(loss, max_size=3), loss, st.none() | loss, st.none() | share)
    return st.lists(one, min_size=1, max_size=most)


ANY_ROUNDS = rounds_of(FINITE | HOSTILE, SHARE | HOSTILE) | rounds_of(USUAL | HOSTILE, SHARE)
USABLE_ROUNDS = rounds_of(FINITE, SHARE) | rounds_of(USUAL, SHARE)


@dataclass(frozen=True)
class Scores:
    """The scores of one drawn run, in order, the step finally called best, the fold's last state.

    `chosen_step` is that of the checkpoint the run would end with; None where none is usable.
    `metrics` are what the trainer is told; NaN among them, so they are not compared. `names` are
    those of the terms of each score.
    """

    values: tuple[float, ...]
    is_best: tuple[bool, ...]
    best_step: int | None
    chosen_step: int | None
    state: Any
    metrics: tuple[float, ...] = field(compare=False)
    names: tuple[object, ...] = ()


@dataclass(frozen=True)
class Subject:
    """The code whose scorer is asked, and the plan's scorer section, in its own classes too."""

    code: Any
    plan: ScorerPlan
    own_plan: Any

    def neighbour(self, fields: Mapping[str, Any]) -> "Subject":
        """Return the same code with some fields of the plan's section changed.

        A formula of the user's stays: no other name would ask the code that is to be launched.
        """
        kept = {"name": self.plan.name.value} if self.plan.name is ScorerName.OWN else {}
        changed = _changed(
            json.loads(json.dumps(dataclasses.asdict(self.plan))), {**fields, **kept}
        )
        plan = read_section(ScorerPlan, changed, "scorer", [])
        return subject_of(self.code, plan)

    def score_at(self, steps: Sequence[int], rounds: Sequence[Round]) -> Scores:
        """Return the scores of a run evaluated at these steps; raise whatever the scorer raises."""
        return self.fold_or_raise(log_of(rounds, steps))

    def score(self, rounds: Sequence[Round]) -> Scores:
        """Return the scores of a run; evaluation k is step k, counted from 1."""
        return self.fold(log_of(rounds))

    def fold(self, log: Sequence[Mapping[str, Any]], state: Any = None) -> Scores:
        """Fold the scorer over a log, from a state that an earlier fold ended with.

        A log that the scorer raises on is no example for any law but `total`.
        """
        try:
            return self.fold_or_raise(log, state)
        except Exception:
            reject()

    def fold_or_raise(self, log: Sequence[Mapping[str, Any]], state: Any = None) -> Scores:
        """Fold the scorer over a log; raise whatever the scorer raises."""
        code = self.code
        state = code.ScoreState() if state is None else state
        scores = []
        for entry in log:
            state, score = code.observe_log(state, code.read_log(entry), self.own_plan)
            scores += [] if score is None else [score]
        return self._scores(scores, state)

    def replay(self, log: Sequence[Mapping[str, Any]]) -> Scores:
        """Return the scores that the code's own replay of a whole log gives."""
        state, scores = self.code.replay_scores(log, self.own_plan)
        return self._scores(scores, state)

    def _scores(self, scores: Sequence[Any], state: Any) -> Scores:
        choice = self.code.final_choice(scores, self.own_plan)
        return Scores(
            tuple(score.value for score in scores),
            tuple(score.is_best for score in scores),
            state.best_step,
            None if choice is None else choice.step,
            state,
            tuple(self.code.trainer_metric(score) for score in scores),
            tuple(name for score in scores for name in score.components),
        )


def subject_of(code: Any, plan: ScorerPlan) -> Subject:
    """Return the subject; the plan's section becomes one of the code's own classes if need be."""
    if isinstance(plan, code.ScorerPlan):
        return Subject(code, plan, plan)
    fields = json.loads(json.dumps(dataclasses.asdict(plan)))
    return Subject(code, plan, code.read_section(code.ScorerPlan, fields, "scorer", []))


def _changed(section: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section with these fields in place of its own, those of inner sections too."""
    inner = {
        name: _changed(section[name], value) if isinstance(value, Mapping) else value
        for name, value in fields.items()
    }
    return {**section, **inner}


def log_of(rounds: Sequence[Round], steps: Sequence[int] = ()) -> Log:
    """Return the rounds as a trainer's log_history, timing keys and final summary included.

    They are at these steps; without any, at the first ones. What is None was not logged.
    """
    log: Log = []
    for step, each in zip(steps or count(1), rounds, strict=False):
        log += [{"loss": loss, "grad_norm": 1.0, "step": step} for loss in each.train]
        log.append({**_measured(each), "eval_runtime": 0.1, "step": step})
    return [*log, {"train_loss": 1.0, "train_runtime": 1.0, "step": len(rounds)}]


def _measured(each: Round) -> dict[str, object]:
    values = {
        "eval_loss": each.loss,
        "eval_rewards/margins": each.margin,
        "eval_rewards/accuracies": each.accuracy,
    }
    return {key: value for key, value in values.items() if value is not None}


def scored_losses(rounds: Sequence[Round], plan: ScorerPlan) -> Iterator[float]:
    """Yield the eval loss of each of these usable rounds, as it is to be scored."""
    average: float | None = None
    for each in rounds:
        loss, alpha = float(each.loss), plan.eval_ema_alpha
        average = loss if average is None else (1 - alpha) * average + alpha * loss
        yield average if plan.redrawn_eval else loss


def is_usable(value: object) -> bool:
    """Tell whether a loss can be scored; said again here, so that the code is not asked itself."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False
