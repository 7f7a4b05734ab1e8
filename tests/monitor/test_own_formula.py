"""A formula in a file of one's own: what it is given, and what is refused."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from podproof.compiler.errors import BadConfig
from podproof.monitor.own_formula import load_formula, replay_formula
from podproof.monitor.scorers import scorer_of_file
from podproof.runtime.plan import ScorerPlan
from podproof.runtime.scorer import replay_scores
from podproof.runtime.scores import Evaluation, ScoreState

# What robust is, written as a file of one's own would write it.
ROBUST = """
def own_components(state, evaluation, plan):
    if evaluation.train_loss is None:
        return {"eval_loss": evaluation.loss, "gap": 0.0}
    gap = min(max(evaluation.loss - evaluation.train_loss, 0.0), 0.5 * evaluation.scale)
    return {"eval_loss": evaluation.loss, "gap": 0.02 * gap}


def own_bound(plan):
    return 0.0, 0.01
"""

LOSSES: st.SearchStrategy[Any] = st.floats() | st.none() | st.just("0.1")
ENTRIES = st.lists(
    st.fixed_dictionaries({"loss": LOSSES}) | st.fixed_dictionaries({"eval_loss": LOSSES}),
    max_size=12,
)


def file_with(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    return path


@given(ENTRIES)
def test_a_formula_is_folded_as_the_pod_folds_it(entries: list[dict[str, Any]]) -> None:
    log = [{**entry, "step": step} for step, entry in enumerate(entries)]
    namespace: dict[str, Any] = {}
    exec(ROBUST, namespace)  # noqa: S102 - the text above

    state, scores = replay_formula(log, namespace["own_components"])
    same_state, same_scores = replay_scores(log, ScorerPlan())

    assert [(score.step, score.value) for score in scores] == [
        (score.step, score.value) for score in same_scores
    ]
    assert (state.best_step, state.best_score) == (same_state.best_step, same_state.best_score)


def test_a_formula_is_given_what_its_evaluation_measured() -> None:
    seen: list[Evaluation] = []

    def own_components(
        _state: ScoreState, evaluation: Evaluation, _plan: ScorerPlan
    ) -> dict[str, float]:
        seen.append(evaluation)
        return {"eval_loss": evaluation.loss}

    log = [
        {"eval_loss": 2.0, "step": 10},
        {"loss": 1.5, "step": 20},
        {"eval_loss": 1.0, "eval_rewards/margins": 0.5, "eval_rewards/accuracies": 1.0, "step": 20},
        {"eval_loss": 0.9, "step": 30},
    ]
    replay_formula(log, own_components)

    assert seen == [
        Evaluation(10, 2.0, 2.0, None, None, None),
        Evaluation(20, 1.0, 2.0, 1.5, 0.5, 1.0),
        Evaluation(30, 0.9, 2.0, 1.5, 0.5, 1.0),
    ]


def test_a_score_that_is_nan_is_never_the_best() -> None:
    state, scores = replay_formula([{"eval_loss": 1.0, "step": 1}], lambda *_: {"x": math.nan})

    assert (state.best_step, scores[0].value, scores[0].is_best) == (None, math.inf, False)


def test_a_scorer_of_a_file_is_called_by_its_name(tmp_path: Path) -> None:
    scorer = scorer_of_file(file_with(tmp_path, ROBUST))

    state, _ = scorer.replay([{"eval_loss": 1.0, "step": 7}])
    assert (scorer.name, state.best_step) == ("mine", 7)


BOUND = "\ndef own_bound(plan): return 0.0, 0.0\n"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("def other(): ...", "defines no function own_components"),
        ("import time\n", "imports time"),
        ("def broken(:", "is not Python"),
        (
            "def own_components(a, b, c): ..." + BOUND + "X = 1 / 0\n",
            "cannot be loaded: ZeroDivision",
        ),
    ],
)
def test_a_file_that_could_not_ride_in_a_script_is_refused(
    text: str, what: str, tmp_path: Path
) -> None:
    with pytest.raises(BadConfig, match=what):
        load_formula(file_with(tmp_path, text))


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="cannot be read"):
        load_formula(tmp_path / "missing.py")
