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
    own         what own_scorer says

`objective=accuracy` adds -accuracy_weight * s * accuracy to any of them; `redrawn_eval` puts a
moving average of e in the place of e; `objective=reward` changes the choice at the end only.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from podproof.runtime.own_scorer import own_bound, own_components
from podproof.runtime.plan import Objective, ScorerName, ScorerPlan
from podproof.runtime.readings import NO_MEASURES, LogKind, Measures, Reading, read_log, usable_loss
from podproof.runtime.scores import Evaluation, Score, Scorer, ScoreState
from podproof.runtime.values import changed

SCORE_KEY = "eval_checkpoint_score"


def observe_log(
    state: ScoreState, reading: Reading, plan: ScorerPlan
) -> tuple[ScoreState, Score | None]:
    """Return the state after one log, and the score if it was an evaluation that is scored.

    Of several eval sets the first one seen in a run is scored; the others are for the record. A
    step that was scored last is not scored again: an evaluation may be repeated after a restart.
    """
    if reading.kind is LogKind.TRAIN:
        return observe_train_loss(state, reading.loss, plan), None
    scored_set = reading.eval_set if state.eval_set is None else state.eval_set
    if reading.kind is not LogKind.EVALUATION or reading.eval_set != scored_set:
        return state, None
    # A history without steps reads as step 0 throughout, and every entry of it counts.
    if reading.step > 0 and reading.step == state.scored_step:
        return state, None
    if state.eval_set is None:
        state = changed(state, eval_set=scored_set)
    return observe_evaluation(state, reading.step, reading.loss, plan, reading.measures)


def observe_train_loss(state: ScoreState, loss: object, plan: ScorerPlan) -> ScoreState:
    """Return the state after one logged train loss; an unusable one changes nothing."""
    return observe_train_losses(state, (usable_loss(loss),), plan)


def observe_train_losses(
    state: ScoreState, losses: Iterable[float | None], plan: ScorerPlan
) -> ScoreState:
    """Return the state after these train losses, oldest first; None is an unusable one."""
    ema, last, alpha = state.train_ema, state.last_train_loss, plan.train_ema_alpha
    for loss in losses:
        if loss is not None:
            ema = loss if ema is None else (1 - alpha) * ema + alpha * loss
            last = loss
    return changed(state, train_ema=ema, last_train_loss=last)


def observe_evaluation(
    state: ScoreState,
    step: int,
    eval_loss: object,
    plan: ScorerPlan,
    measures: Measures = NO_MEASURES,
) -> tuple[ScoreState, Score]:
    """Return the state after one evaluation, and its score.

    An evaluation before the first step (`eval_on_start`) is scored but never the best: there is no
    checkpoint of it.

    >>> state = observe_train_loss(ScoreState(), 1.0, ScorerPlan())
    >>> state, score = observe_evaluation(state, 10, 2.0, ScorerPlan())
    >>> score.value, score.is_best
    (2.02, True)
    """
    loss = usable_loss(eval_loss)
    if loss is None:
        return _unusable(state, step, measures, plan)
    state = _with_evaluation(state, loss, measures, plan)
    evaluation = _evaluation(state, step, loss, plan)
    components = SCORERS[plan.name].components(state, evaluation, plan)
    if plan.objective is Objective.ACCURACY:
        components = {**components, "objective": _accuracy_term(evaluation, plan)}
    value = _sum_in_order(components.values())
    if not math.isfinite(value):
        # Losses near the largest float add up to infinity, and a formula of the user's may say NaN.
        return _unusable(state, step, measures, plan)
    is_best = value < state.best_score and step > 0
    score = Score(step, value, components, is_best, evaluation.loss, measures)
    return _with_score(state, score, plan), score


def replay_scores(
    log_history: Iterable[Mapping[str, Any]], plan: ScorerPlan
) -> tuple[ScoreState, tuple[Score, ...]]:
    """Fold the scorer over a trainer's `state.log_history`, oldest first.

    A resumed run rebuilds its state this way, and an old one is scored anew.
    """
    state, scores = ScoreState(), []
    for entry in log_history:
        state, score = observe_log(state, read_log(entry), plan)
        scores += [] if score is None else [score]
    return state, tuple(scores)


def final_choice(scores: Sequence[Score], plan: ScorerPlan) -> Score | None:
    """Return the score of the checkpoint a run ends with; None if no evaluation was usable.

    It is the best score. With `objective=reward` it is the one with the highest margin among those
    whose eval loss is within `reward_tolerance` of the lowest, as a share of that; of equal margins
    the better score, of equal scores the earlier. Needs every checkpoint kept.
    """
    usable = [score for score in scores if score.value < math.inf and score.step > 0]
    ranked = sorted(usable, key=lambda score: score.value)
    near = _within_tolerance(ranked, plan) if plan.objective is Objective.REWARD else []
    best = max(near, key=lambda score: score.measures.margin or 0.0, default=None)
    return best or next(iter(ranked), None)


def trainer_metric(score: Score) -> float:
    """Return what the trainer compares: higher is better, NaN when unusable (never best)."""
    return -score.value if math.isfinite(score.value) else math.nan


def score_bound(plan: ScorerPlan) -> tuple[float, float]:
    """Return how far below and above the eval loss a score may lie, in units of its scale.

    >>> score_bound(ScorerPlan())
    (0.0, 0.01)
    """
    below, above = SCORERS[plan.name].bound(plan)
    return below - (plan.accuracy_weight if plan.objective is Objective.ACCURACY else 0.0), above


def _robust(_state: ScoreState, evaluation: Evaluation, plan: ScorerPlan) -> dict[str, float]:
    loss, train_loss = evaluation.loss, evaluation.train_loss
    if train_loss is None:
        return {"eval_loss": loss, "gap": 0.0}
    gap = min(max(loss - train_loss, 0.0), plan.gap_limit * evaluation.scale)
    return {"eval_loss": loss, "gap": plan.gap_weight * gap}


def _robust_bound(plan: ScorerPlan) -> tuple[float, float]:
    return 0.0, plan.gap_weight * plan.gap_limit


def _eval_loss(_state: ScoreState, evaluation: Evaluation, _plan: ScorerPlan) -> dict[str, float]:
    return {"eval_loss": evaluation.loss}


def _eval_loss_bound(_plan: ScorerPlan) -> tuple[float, float]:
    return 0.0, 0.0


def _seed_v1(state: ScoreState, evaluation: Evaluation, _plan: ScorerPlan) -> dict[str, float]:
    loss, train_loss = evaluation.loss, state.last_train_loss
    gap = 0.0 if train_loss is None else abs(train_loss - loss) / max(loss, 0.001)
    return {
        "eval_loss": 0.5 * loss,
        "gap": 0.3 * gap,
        "perplexity": 0.1 * min(math.exp(loss) / 20.0, 1.0),
        "improving": -0.1 if state.not_improving == 0 else 0.0,
    }


def _seed_v1_bound(_plan: ScorerPlan) -> tuple[float, float]:
    return -math.inf, math.inf


SCORERS: Mapping[ScorerName, Scorer] = {
    ScorerName.ROBUST: Scorer(_robust, _robust_bound),
    ScorerName.EVAL_LOSS: Scorer(_eval_loss, _eval_loss_bound),
    ScorerName.SEED_V1: Scorer(_seed_v1, _seed_v1_bound),
    ScorerName.OWN: Scorer(own_components, own_bound),
}


def _accuracy_term(evaluation: Evaluation, plan: ScorerPlan) -> float:
    """Return the term of `objective=accuracy`; where accuracies tie (at 1.0, say), loss decides."""
    return -plan.accuracy_weight * evaluation.scale * (evaluation.accuracy or 0.0)


def _within_tolerance(usable: Sequence[Score], plan: ScorerPlan) -> list[Score]:
    losses = [score.loss for score in usable if score.loss is not None]
    lowest = min(losses, default=0.0)
    limit = lowest + plan.reward_tolerance * abs(lowest)
    return [
        score
        for score in usable
        if score.measures.margin is not None and score.loss is not None and score.loss <= limit
    ]


def _with_evaluation(
    state: ScoreState, loss: float, measures: Measures, plan: ScorerPlan
) -> ScoreState:
    before, ema, alpha = state.measures, state.loss_ema, plan.eval_ema_alpha
    return changed(
        state,
        scale=abs(loss) if state.scale is None else state.scale,
        loss_ema=loss if ema is None else (1 - alpha) * ema + alpha * loss,
        measures=Measures(
            before.margin if measures.margin is None else measures.margin,
            before.accuracy if measures.accuracy is None else measures.accuracy,
        ),
    )


def _evaluation(state: ScoreState, step: int, loss: float, plan: ScorerPlan) -> Evaluation:
    scored = state.loss_ema if plan.redrawn_eval and state.loss_ema is not None else loss
    measures = state.measures
    return Evaluation(
        step, scored, state.scale or 0.0, state.train_ema, measures.margin, measures.accuracy
    )


def _unusable(
    state: ScoreState, step: int, measures: Measures, plan: ScorerPlan
) -> tuple[ScoreState, Score]:
    score = Score(step, math.inf, {}, is_best=False, measures=measures)
    return _with_score(state, score, plan), score


def _with_score(state: ScoreState, score: Score, plan: ScorerPlan) -> ScoreState:
    """Return the state with the best so far, how many evaluations ago that was, and the loss."""
    # As in transformers' EarlyStoppingCallback: the margin is asked against the best so far, and
    # the first evaluation starts the count, whatever came of it.
    improved = state.best_score - score.value > plan.early_stopping.min_delta
    since_best = 0 if improved else state.since_best + 1
    news: dict[str, Any] = {"scored_step": score.step, "since_best": since_best}
    if score.is_best:
        news |= {"best_score": score.value, "best_step": score.step}
    loss, previous = score.loss, state.previous_eval_loss
    if loss is not None:
        news["previous_eval_loss"] = loss
        if previous is not None:
            news["not_improving"] = 0 if loss < previous else state.not_improving + 1
    return changed(state, **news)


def _sum_in_order(values: Iterable[float]) -> float:
    # sum() is compensated from Python 3.12 on; a plain loop gives the same bits everywhere.
    total = 0.0
    for value in values:
        total += value
    return total
