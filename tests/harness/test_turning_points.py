"""A formula that does something at a number of its own is caught there; a sound one is not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run
from podproof.harness.embedded import embedded
from podproof.harness.proofs import EXAMPLES, scorer_answer
from podproof.harness.properties import PROPERTIES, broken_properties
from podproof.harness.verdict import Surroundings

HEAD = '''\
"""A formula."""

from collections.abc import Mapping

from podproof.runtime.plan import ScorerPlan
from podproof.runtime.scores import Evaluation, ScoreState

FAR = 50_000


def own_components(
    state: ScoreState, evaluation: Evaluation, plan: ScorerPlan
) -> Mapping[str, float]:
    """Return terms."""
    loss, scale, step = evaluation.loss, evaluation.scale, evaluation.step
    margin, accuracy, train = evaluation.margin, evaluation.accuracy, evaluation.train_loss
    x = 0.0
    {body}
    return {{"eval_loss": loss, "x": x}}


def own_bound(plan: ScorerPlan) -> tuple[float, float]:
    """Return the bound."""
    return -0.5, 0.5
'''

Broken = Callable[..., set[str]]


@pytest.fixture
def broken(tmp_path: Path) -> Broken:
    """Return what asks a body for the three laws, and returns those that it breaks."""
    laws = {law: PROPERTIES[law] for law in ("total", "monotone", "neutral", "pareto")}

    def asked(body: str, *more: str) -> set[str]:
        path = tmp_path / "own.py"
        path.write_text(HEAD.format(body=body))
        overrides = ("experiment=tiny_dpo", "scorer=own", f"scorer.file='{path}'", *more)
        run = lower(read(Request(overrides)))
        with embedded(compile_run(run).text) as code:
            problems = broken_properties(code, run.plan.scorer, EXAMPLES, laws)
        return {problem.where.removeprefix("scorer.") for problem in problems}

    return asked


@pytest.mark.parametrize(
    ("body", "law"),
    [
        ("x = -0.4 * scale if step > FAR else 0.0", "neutral"),
        ("x = -0.4 * scale if step == 700 else 0.0", "neutral"),
        ("x = 0.2 * scale if step - (state.scored_step or step) > 10 else 0.0", "neutral"),
        ("x = 0.3 * scale if 1.1 < loss < 1.2 else 0.0", "monotone"),
        ("x = -0.3 * scale if train is not None and 3.7 < train < 3.71 else 0.0", "pareto"),
        ("x = -0.1 * scale * ((accuracy or 0.5) - 0.5)", "pareto"),
        ("x = -0.1 * scale if margin is not None and 7.25 < margin < 7.5 else 0.0", "pareto"),
        ("x = -0.4 * scale if margin is not None and step > 7000 else 0.0", "pareto"),
    ],
    ids=["late", "at one step", "far apart", "a range", "a train loss", "zero", "margin", "both"],
)
def test_a_formula_that_turns_where_no_run_was_drawn_is_caught(
    body: str, law: str, broken: Broken
) -> None:
    assert law in broken(body)


@pytest.mark.parametrize(
    "body",
    [
        "x = 0.0 if train is None else 0.02 * min(max(loss - train, 0.0), 0.5 * scale)",
        "x = -0.01 * scale * (margin or 0.0) / (1.0 + abs(margin or 0.0))",
        "x = -0.1 * scale * min(max((accuracy or 0.0) - 0.25, 0.0), 0.5)",
        "x = 0.01 * scale if margin is not None and margin < 3.5 else 0.0",
    ],
    ids=["gap", "margin", "accuracy between two", "a step of the margin"],
)
def test_a_sound_formula_is_left_alone(body: str, broken: Broken) -> None:
    assert broken(body) == set()


def test_a_sound_formula_is_left_alone_where_losses_are_averaged(broken: Broken) -> None:
    assert broken("pass", "scorer.redrawn_eval=true") == set()


def test_the_terms_of_a_formula_are_named_by_text(broken: Broken) -> None:
    assert broken("return {1: loss}") == {"total"}


def test_what_a_formula_prints_stays_out_of_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.py"
    path.write_text(HEAD.format(body="print(loss)"))
    overrides = ("experiment=tiny_dpo", "scorer=own", f"scorer.file='{path}'")

    _, problems = scorer_answer(compile_run(lower(read(Request(overrides)))), Surroundings())

    assert problems == ()
    assert capsys.readouterr().out == ""
