"""When a run has seen enough: one pure answer from the score, the trend and the plan.

Every rank folds the same logs, so every rank gets the same answer at the same step.
"""

from enum import StrEnum

from podproof.runtime.plan import ScorerPlan
from podproof.runtime.scores import ScoreState
from podproof.runtime.trend import LossTrend, TrendWord, is_trend_over


class StopReason(StrEnum):
    """Why a run ends before its last step."""

    EARLY_STOPPING = "early_stopping"
    DIVERGING = "diverging"
    PLATEAU = "plateau"


def stop_reason(scores: ScoreState, trend: LossTrend, plan: ScorerPlan) -> StopReason | None:
    """Return why the run should end now, the most alarming reason first; None to go on.

    Ask after every train log and every evaluation; `trend` is one made by `trend_of(plan.trend)`.
    """
    if is_trend_over(trend, TrendWord.DIVERGING, plan.trend.stop_on_divergence):
        return StopReason.DIVERGING
    if is_patience_over(scores, plan):
        return StopReason.EARLY_STOPPING
    if is_trend_over(trend, TrendWord.FLAT, plan.trend.stop_on_plateau):
        return StopReason.PLATEAU
    return None


def is_patience_over(scores: ScoreState, plan: ScorerPlan) -> bool:
    """Tell whether `patience` evaluations in a row brought nothing better by more than `min_delta`.

    The count is that of transformers' EarlyStoppingCallback: a gain of exactly `min_delta` is none,
    each evaluation is held against the best so far, and the first one starts the count.
    """
    patience = plan.early_stopping.patience
    return patience is not None and scores.since_best >= patience
