"""A formula in a file of somebody's own, folded over a log as the pod would fold it."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from podproof.compiler.errors import BadConfig
from podproof.compiler.own_scorer import own_scorer_problems
from podproof.runtime.errors import Problem
from podproof.runtime.plan import ScorerName, ScorerPlan
from podproof.runtime.readings import LogKind, Reading, read_log
from podproof.runtime.scorer import observe_evaluation, observe_log
from podproof.runtime.scores import Evaluation, Score, ScoreState

# The state is moved on by the scorer that adds nothing to the eval loss.
_PLAN = ScorerPlan(name=ScorerName.EVAL_LOSS)

Components = Callable[[ScoreState, Evaluation, ScorerPlan], Mapping[str, float]]


def load_formula(path: Path) -> Components:
    """Return `own_components` of a file that `scorer.file` would take; the file is run.

    Raises BadConfig with what the compiler has against it, or what running it raised.
    """
    problems = tuple(own_scorer_problems(ScorerPlan(name=ScorerName.OWN, file=str(path))))
    if problems:
        raise BadConfig(*problems)
    # A loader of its own, since the file need not end in .py.
    loader = SourceFileLoader(f"own_formula_{path.stem}", str(path))
    module = ModuleType(loader.name)
    try:
        loader.exec_module(module)
    except Exception as error:
        # The file is not ours: whatever it raises is told as its own fault.
        what = f"cannot be loaded: {type(error).__name__}: {error}"
        raise BadConfig(Problem(str(path), what, "mend the file")) from error
    return cast("Components", module.own_components)


def replay_formula(
    log_history: Iterable[Mapping[str, Any]], formula: Components
) -> tuple[ScoreState, tuple[Score, ...]]:
    """Fold the formula over a trainer's log, oldest first, as `replay_scores` folds ours.

    A score that is NaN counts as unusable. What the formula raises is passed on.
    """
    state, scores = ScoreState(), []
    for entry in log_history:
        reading = read_log(entry)
        if reading.kind is LogKind.EVALUATION:
            state, score = _score(state, reading, formula)
            scores.append(score)
        else:
            state, _ = observe_log(state, reading, _PLAN)
    return state, tuple(scores)


def _score(before: ScoreState, reading: Reading, formula: Components) -> tuple[ScoreState, Score]:
    step, loss, measures = reading.step, reading.loss, reading.measures
    after, by_loss = observe_evaluation(before, step, loss, _PLAN, measures)
    if loss is None:
        return after, by_loss
    seen = replace(before, scale=after.scale, loss_ema=after.loss_ema, measures=after.measures)
    known = seen.measures
    evaluation = Evaluation(
        step, loss, seen.scale or 0.0, seen.train_ema, known.margin, known.accuracy
    )
    components = dict(formula(seen, evaluation, _PLAN))
    value = 0.0
    for term in components.values():  # in order: sum() compensates on newer Pythons only
        value += term
    value = math.inf if math.isnan(value) else value
    is_best = value < before.best_score and step > 0
    best = (value, step) if is_best else (before.best_score, before.best_step)
    state = replace(after, best_score=best[0], best_step=best[1])
    return state, replace(by_loss, value=value, components=components, is_best=is_best)
