"""A formula in a file of somebody's own, folded over a log as the pod would fold it."""

import importlib.util
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from podproof.compiler.errors import BadConfig
from podproof.runtime.errors import Problem
from podproof.runtime.events import number_or_none
from podproof.runtime.plan import ScorerName, ScorerPlan
from podproof.runtime.scorer import (
    Score,
    ScoreState,
    observe_evaluation,
    observe_train_loss,
    usable_loss,
)

# The state is moved on by the scorer that adds nothing to the eval loss.
_PLAN = ScorerPlan(name=ScorerName.EVAL_LOSS)

_MARGINS = ("eval_rewards/margins",)
_ACCURACIES = ("eval_rewards/accuracies", "eval_mean_token_accuracy")


@dataclass(frozen=True)
class Evaluation:
    """What a formula scores: an evaluation with a usable loss.

    `scale` is the size of the first usable eval loss of the run, so that a term in units of it
    assumes no scale. `train_loss` is the moving average of the logged train losses. It, `margin`
    (DPO, ORPO) and `accuracy` are carried forward from the last usable value; None until then.
    """

    step: int
    loss: float
    scale: float
    train_loss: float | None
    margin: float | None
    accuracy: float | None


Components = Callable[[ScoreState, Evaluation, ScorerPlan], Mapping[str, float]]


def load_formula(path: Path) -> Components:
    """Return `own_components` of a Python file, which is run; raise BadConfig when it has none."""
    spec = importlib.util.spec_from_file_location(f"own_formula_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise BadConfig(Problem(str(path), "is no Python file", "give a file that ends in .py"))
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        # The file is not ours: whatever it raises is told as its own fault.
        what = f"cannot be loaded: {type(error).__name__}: {error}"
        raise BadConfig(Problem(str(path), what, "mend the file")) from error
    formula = getattr(module, "own_components", None)
    if not callable(formula):
        what = "defines no function own_components(state, evaluation, plan)"
        raise BadConfig(Problem(str(path), what, "see docs/how-to/prove-a-scorer.md"))
    return cast("Components", formula)


def replay_formula(
    log_history: Iterable[Mapping[str, Any]], formula: Components
) -> tuple[ScoreState, tuple[Score, ...]]:
    """Fold the formula over a trainer's log, oldest first, as `replay_scores` folds ours.

    A score that is NaN counts as unusable. What the formula raises is passed on.
    """
    state, scores = ScoreState(), []
    margin = accuracy = None
    for entry in log_history:
        if "loss" in entry:
            state = observe_train_loss(state, entry["loss"], _PLAN)
        elif "eval_loss" in entry:
            margin = _measured(entry, _MARGINS, margin)
            accuracy = _measured(entry, _ACCURACIES, accuracy)
            state, score = _score(state, entry, formula, (margin, accuracy))
            scores.append(score)
    return state, tuple(scores)


def _score(
    before: ScoreState,
    entry: Mapping[str, Any],
    formula: Components,
    measured: tuple[float | None, float | None],
) -> tuple[ScoreState, Score]:
    step, loss = entry["step"], usable_loss(entry["eval_loss"])
    after, _ = observe_evaluation(before, step, loss, _PLAN)
    if loss is None:
        return after, Score(step, math.inf, {}, is_best=False)
    evaluation = Evaluation(step, loss, after.scale or 0.0, before.train_ema, *measured)
    components = dict(formula(replace(before, scale=after.scale), evaluation, _PLAN))
    value = 0.0
    for term in components.values():  # in order: sum() compensates on newer Pythons only
        value += term
    value = math.inf if math.isnan(value) else value
    is_best = value < before.best_score
    best = (value, step) if is_best else (before.best_score, before.best_step)
    state = replace(after, best_score=best[0], best_step=best[1])
    return state, Score(step, value, components, is_best)


def _measured(entry: Mapping[str, Any], names: Iterable[str], before: float | None) -> float | None:
    numbers = (usable_loss(number_or_none(entry.get(name))) for name in names)
    return next((number for number in numbers if number is not None), before)
