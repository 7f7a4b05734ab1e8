"""The values of a score: what the fold remembers, what a formula is given, what comes out.

A formula of your own (`scorer.name=own`, docs/how-to/own-scorer.md) needs these and no other names.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from podproof.runtime.plan import ScorerPlan
from podproof.runtime.readings import NO_MEASURES, Measures


@dataclass(frozen=True)
class ScoreState:
    """What the fold remembers between two events; every field is the same on all ranks.

    `train_ema` and `last_train_loss` are absent until a usable train loss was logged, `scale` (the
    size of the first usable eval loss) and `loss_ema` until a usable eval loss was seen. `measures`
    are the last usable ones. `eval_set` is the name of the set that is scored: the first one seen.
    `scored_step` is the step of the last evaluation that was scored. `since_best` counts
    evaluations after the best one, for early stopping; -1 before the first.
    `not_improving` is seed_v1's counter: 0 means the last eval loss fell.
    """

    train_ema: float | None = None
    last_train_loss: float | None = None
    scale: float | None = None
    loss_ema: float | None = None
    measures: Measures = NO_MEASURES
    eval_set: str | None = None
    scored_step: int | None = None
    best_score: float = math.inf
    best_step: int | None = None
    since_best: int = -1
    previous_eval_loss: float | None = None
    not_improving: int = 1


@dataclass(frozen=True)
class Evaluation:
    """What a formula scores: an evaluation with a usable loss.

    `loss` is the eval loss; with `redrawn_eval` its moving average. `scale` is the size of the
    first usable eval loss of the run: a term in units of it does not assume a scale of the loss.
    `train_loss` is the moving average of the logged train losses. It, `margin` and `accuracy` are
    carried forward from the last usable value, so that a missing one neither helps nor hurts; None
    until there was one.
    """

    step: int
    loss: float
    scale: float
    train_loss: float | None
    margin: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Score:
    """The verdict on one evaluation.

    `value` is never NaN; it is +inf when the evaluation is unusable. `components` sum to `value`
    and are empty when it is +inf. `is_best` tells whether this evaluation is the best so far:
    strictly lower than all before, so that a tie keeps the earlier one. `loss` is the eval loss as
    it was scored, `measures` are what this evaluation itself measured.
    """

    step: int
    value: float
    components: Mapping[str, float]
    is_best: bool
    loss: float | None = None
    measures: Measures = NO_MEASURES


@dataclass(frozen=True)
class Scorer:
    """A formula, and the bound it states.

    `components` returns named terms that sum to the score; lower is better. `bound` returns how
    far below and above the eval loss the sum may lie, in units of `scale`.
    """

    components: Callable[[ScoreState, Evaluation, ScorerPlan], Mapping[str, float]]
    bound: Callable[[ScorerPlan], tuple[float, float]]
