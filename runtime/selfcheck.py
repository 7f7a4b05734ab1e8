"""What `pod_script.py --selfcheck` proves: the scorer gives its published values."""

import math
from collections.abc import Mapping
from typing import Any

from podproof.runtime.plan import Objective, ScorerName, ScorerPlan
from podproof.runtime.readings import Measures
from podproof.runtime.scorer import (
    SCORERS,
    final_choice,
    observe_evaluation,
    observe_train_loss,
)
from podproof.runtime.scores import Evaluation, ScoreState

# (train losses logged before, eval loss, expected score) of `robust` with its default weights.
# The first eval loss sets the scale; each row starts from nothing.
ROBUST_VECTORS: tuple[tuple[tuple[float, ...], float, float], ...] = (
    ((), 2.0, 2.0),
    ((2.5,), 2.0, 2.0),
    ((1.0,), 2.0, 2.02),
    ((1.0, 0.0), 2.0, 2.02),
    ((1.9, 1.8), 2.0, 2.003),
    ((-4.0,), -2.0, -1.98),
)

# (eval loss, last train loss, evaluations without improvement, expected score) of the original
# formula, to the six decimals its owners published.
SEED_V1_VECTORS: tuple[tuple[float, float | None, int, float], ...] = (
    (0.5, 0.45, 0, 0.188244),
    (0.4, 0.1, 1, 0.432459),
    (0.6, 0.55, 0, 0.234111),
    (0.6, 0.55, 1, 0.334111),
    (0.5, None, 0, 0.158244),
    (2.5, 2.8, 0, 1.246912),
    (1.2, 1.1, 0, 0.541601),
    (0.8, 0.75, 0, 0.329878),
    (0.75, 0.3, 0, 0.465585),
    (0.9, 0.1, 1, 0.728965),
    (2.0, 1.8, 0, 0.966945),
    (2.0, None, 0, 0.936945),
    (2.0, 0.5, 1, 1.261945),
    (2.0, None, 1, 1.036945),
)


# (options of the scorer, (eval loss, margin, accuracy) of steps 1, 2, ..., score of the last one,
# step finally chosen), computed by hand. Accuracies of 1.0 tie, and the loss decides.
OBJECTIVE_VECTORS: tuple[
    tuple[Mapping[str, Any], tuple[tuple[float, float | None, float | None], ...], float, int], ...
] = (
    ({}, ((2.0, 9.0, 1.0), (1.5, 0.0, 0.0)), 1.5, 2),
    ({"name": ScorerName.EVAL_LOSS}, ((2.0, 9.0, 1.0), (2.5, 0.0, 0.0)), 2.5, 1),
    ({"redrawn_eval": True}, ((2.0, None, None), (1.0, None, None)), 1.5, 2),
    ({"objective": Objective.ACCURACY}, ((2.0, None, 0.5), (2.1, None, 1.0)), 1.7, 2),
    ({"objective": Objective.ACCURACY}, ((2.0, None, 1.0), (1.9, None, 1.0)), 1.5, 2),
    ({"objective": Objective.REWARD}, ((1.0, 1.0, 1.0), (1.04, 3.0, 1.0), (1.2, 9.0, 1.0)), 1.2, 2),
)


def failed_vectors() -> tuple[str, ...]:
    """Return a line for each vector the embedded scorer does not reproduce; empty when all do."""
    return (*_failed_robust_vectors(), *_failed_seed_v1_vectors(), *_failed_objective_vectors())


def _failed_robust_vectors() -> tuple[str, ...]:
    lines = []
    plan = ScorerPlan(name=ScorerName.ROBUST)
    for train_losses, eval_loss, expected in ROBUST_VECTORS:
        state = ScoreState()
        for loss in train_losses:
            state = observe_train_loss(state, loss, plan)
        _, score = observe_evaluation(state, 1, eval_loss, plan)
        if not math.isclose(score.value, expected, abs_tol=1e-12):
            lines.append(f"robust{(train_losses, eval_loss)}: {score.value}, expected {expected}")
    return tuple(lines)


def _failed_seed_v1_vectors() -> tuple[str, ...]:
    lines = []
    for eval_loss, train_loss, not_improving, expected in SEED_V1_VECTORS:
        state = ScoreState(last_train_loss=train_loss, not_improving=not_improving)
        evaluation = Evaluation(1, eval_loss, abs(eval_loss), train_loss, None, None)
        components = SCORERS[ScorerName.SEED_V1].components(state, evaluation, ScorerPlan())
        value = sum(components.values())
        if not math.isclose(value, expected, abs_tol=1e-6):
            lines.append(f"seed_v1{(eval_loss, train_loss)}: {value}, expected {expected}")
    return tuple(lines)


def _failed_objective_vectors() -> tuple[str, ...]:
    lines = []
    for options, evaluations, expected, step in OBJECTIVE_VECTORS:
        plan, state, scores = ScorerPlan(**options), ScoreState(), []
        for number, (loss, margin, accuracy) in enumerate(evaluations, 1):
            measures = Measures(margin, accuracy)
            state, score = observe_evaluation(state, number, loss, plan, measures)
            scores.append(score)
        value, choice = scores[-1].value, final_choice(scores, plan)
        chosen = choice.step if choice else None
        if chosen != step or not math.isclose(value, expected, abs_tol=1e-12):
            lines.append(f"{options}: {value} and step {chosen}, expected {expected} and {step}")
    return tuple(lines)
