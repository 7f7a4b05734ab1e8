"""The score of a checkpoint: a pure fold over training logs and evaluations, lower is better.

Nothing here knows about a trainer, a clock or a file. The same functions choose the checkpoint
on the pod, are attacked by properties before launch, and replay old runs.

    robust      e + gap_weight * clip(e - t, 0, gap_limit * s)
                e: eval loss, t: moving average of the logged train losses (none yet: no gap term),
                s: |first usable eval loss|. A bounded tie-breaker on eval loss.
    eval_loss   e
    seed_v1     0.5 e + 0.3 |t - e| / max(e, 0.001) + 0.1 min(exp(e) / 20, 1) - 0.1 [improving]
                the original formula, t here being the last train loss; kept for comparison,
                with its flaws: it may raise OverflowError, and prefers some worse checkpoints
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from podproof.runtime.plan import ScorerName, ScorerPlan

SCORE_KEY = "eval_checkpoint_score"


@dataclass(frozen=True)
class ScoreState:
    """What the fold remembers between two events; every field is deterministic on all ranks.

    `train_ema` and `last_train_loss` are absent until a usable train loss was logged, `scale`
    until a usable eval loss was seen. `since_best` counts evaluations after the best one, for
    early stopping. `not_improving` is seed_v1's counter: 0 means the last eval loss fell.
    """

    train_ema: float | None = None
    last_train_loss: float | None = None
    scale: float | None = None
    best_score: float = math.inf
    best_step: int | None = None
    since_best: int = 0
    previous_eval_loss: float | None = None
    not_improving: int = 1


@dataclass(frozen=True)
class Score:
    """The verdict on one evaluation.

    `value` is never NaN; it is +inf when the evaluation is unusable. `components` sum to `value`
    and are empty when it is +inf. `is_best` tells whether this evaluation is the best so far:
    strictly lower than all before, so that a tie keeps the earlier one.
    """

    step: int
    value: float
    components: Mapping[str, float]
    is_best: bool


def observe_train_loss(state: ScoreState, loss: object, plan: ScorerPlan) -> ScoreState:
    """Return the state after one logged train loss; an unusable one changes nothing."""
    usable = usable_loss(loss)
    if usable is None:
        return state
    alpha = plan.train_ema_alpha
    ema = usable if state.train_ema is None else (1 - alpha) * state.train_ema + alpha * usable
    return replace(state, train_ema=ema, last_train_loss=usable)


def observe_evaluation(
    state: ScoreState, step: int, eval_loss: object, plan: ScorerPlan
) -> tuple[ScoreState, Score]:
    """Return the state after one evaluation, and its score.

    >>> state = observe_train_loss(ScoreState(), 1.0, ScorerPlan())
    >>> state, score = observe_evaluation(state, 10, 2.0, ScorerPlan())
    >>> score.value, score.is_best
    (2.02, True)
    """
    loss = usable_loss(eval_loss)
    if loss is None:
        return replace(state, since_best=state.since_best + 1), Score(step, math.inf, {}, False)
    state = replace(state, scale=abs(loss) if state.scale is None else state.scale)
    components = FORMULAS[plan.name](state, loss, plan)
    value = _sum_in_order(components.values())
    is_best = value < state.best_score
    since_best = _since_best(state, value, plan)
    state = _remember_trajectory(state, loss)
    if is_best:
        state = replace(state, best_score=value, best_step=step)
    return replace(state, since_best=since_best), Score(step, value, components, is_best)


def replay_scores(
    log_history: Iterable[Mapping[str, Any]], plan: ScorerPlan
) -> tuple[ScoreState, tuple[Score, ...]]:
    """Fold the scorer over a trainer's `state.log_history`, oldest first.

    An entry with "train_loss" is the trainer's final summary and is not a train log; one with
    "loss" is; one with "eval_loss" is an evaluation. A resumed run rebuilds its state this way.
    """
    state, scores = ScoreState(), []
    for entry in log_history:
        if "train_loss" in entry:
            continue
        if "loss" in entry:
            state = observe_train_loss(state, entry["loss"], plan)
        elif "eval_loss" in entry:
            step = int(entry.get("step", 0))
            state, score = observe_evaluation(state, step, entry["eval_loss"], plan)
            scores.append(score)
    return state, tuple(scores)


def should_stop_early(state: ScoreState, plan: ScorerPlan) -> bool:
    """Tell whether `patience` evaluations in a row brought nothing better by `min_delta`."""
    patience = plan.early_stopping.patience
    return patience is not None and state.since_best >= patience


def trainer_metric(score: Score) -> float:
    """Return what the trainer compares: higher is better, NaN when unusable (never best)."""
    return -score.value if math.isfinite(score.value) else math.nan


def usable_loss(value: object) -> float | None:
    """Return a finite number as float; None for anything else, booleans and text included.

    >>> usable_loss(2), usable_loss(True), usable_loss(math.nan), usable_loss(10**400)
    (2.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _robust(state: ScoreState, loss: float, plan: ScorerPlan) -> dict[str, float]:
    if state.train_ema is None or state.scale is None:
        return {"eval_loss": loss, "gap": 0.0}
    gap = min(max(loss - state.train_ema, 0.0), plan.gap_limit * state.scale)
    return {"eval_loss": loss, "gap": plan.gap_weight * gap}


def _eval_loss(_state: ScoreState, loss: float, _plan: ScorerPlan) -> dict[str, float]:
    return {"eval_loss": loss}


def _seed_v1(state: ScoreState, loss: float, _plan: ScorerPlan) -> dict[str, float]:
    train_loss = state.last_train_loss
    gap = 0.0 if train_loss is None else abs(train_loss - loss) / max(loss, 0.001)
    return {
        "eval_loss": 0.5 * loss,
        "gap": 0.3 * gap,
        "perplexity": 0.1 * min(math.exp(loss) / 20.0, 1.0),
        "improving": -0.1 if state.not_improving == 0 else 0.0,
    }


FORMULAS: Mapping[ScorerName, Callable[[ScoreState, float, ScorerPlan], dict[str, float]]] = {
    ScorerName.ROBUST: _robust,
    ScorerName.EVAL_LOSS: _eval_loss,
    ScorerName.SEED_V1: _seed_v1,
}


def _sum_in_order(values: Iterable[float]) -> float:
    # sum() is compensated from Python 3.12 on; a plain loop gives the same bits everywhere.
    total = 0.0
    for value in values:
        total += value
    return total


def _since_best(state: ScoreState, value: float, plan: ScorerPlan) -> int:
    # As in transformers' EarlyStoppingCallback, the margin is asked against the best so far.
    improved = value < state.best_score - plan.early_stopping.min_delta
    return 0 if improved or state.best_step is None else state.since_best + 1


def _remember_trajectory(state: ScoreState, loss: float) -> ScoreState:
    previous = state.previous_eval_loss
    if previous is None:
        return replace(state, previous_eval_loss=loss)
    counter = 0 if loss < previous else state.not_improving + 1
    return replace(state, previous_eval_loss=loss, not_improving=counter)
