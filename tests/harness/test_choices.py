"""Whether two scripts choose the same checkpoints is found by running their own scorers."""

from pathlib import Path

from podproof.compiler.changes import Change, Risk
from podproof.compiler.sides import Side, side_of, side_of_text
from podproof.harness.choices import RUNS, choice_changes
from tests.harness.conftest import script_of

PLAIN = side_of(script_of("experiment=tiny_sft"), "plain")


def edited(old: str, new: str) -> Side:
    assert PLAIN.text.count(old) == 1
    return side_of_text(PLAIN.text.replace(old, new), "edited")


def the_change(after: Side) -> Change:
    (change,) = choice_changes(PLAIN, after)
    return change


def test_nothing_is_asked_when_no_part_of_the_scorer_differs() -> None:
    other = side_of(script_of("experiment=tiny_sft", "trainer.learning_rate=1e-4"), "other")

    assert choice_changes(PLAIN, other) == ()


def test_the_original_scorer_ends_some_runs_with_another_checkpoint() -> None:
    change = the_change(side_of(script_of("experiment=tiny_sft", "scorer=seed_v1"), "seed"))

    assert (change.risk, change.needs_approval) == (Risk.CRITICAL, True)
    assert "nearly flat while train loss plunges: step" in change.detail


def test_a_weight_that_moves_no_choice_needs_no_approval() -> None:
    slightly = script_of("experiment=tiny_sft", "scorer.gap_weight=0.0199")

    change = the_change(side_of(slightly, "slightly"))

    assert (change.risk, change.needs_approval) == (Risk.LOW, False)
    assert change.detail == f"all {len(RUNS)} fixed runs end with the same checkpoint"


def test_a_formula_that_was_edited_is_run_as_it_stands() -> None:
    here = edited(
        'return {"eval_loss": loss, "gap": plan.gap_weight * gap}',
        'return {"eval_loss": -loss, "gap": plan.gap_weight * gap}',
    )

    assert the_change(here).risk is Risk.CRITICAL


def test_a_formula_that_raises_is_an_answer() -> None:
    here = edited("gap = min(max(loss - train_loss, 0.0), plan", "gap = min(None, plan")

    assert "-> TypeError" in the_change(here).detail


def test_a_formula_of_the_users_own_is_run_as_it_rides(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        '"""The worst first."""\n\n\n'
        "def own_components(state, evaluation, plan):\n"
        '    return {"eval_loss": -evaluation.loss}\n\n\n'
        "def own_bound(plan):\n    return -2.0, 2.0\n"
    )
    own = script_of("experiment=tiny_sft", "scorer.name=own", f"scorer.file={file}")

    change = the_change(side_of(own, "own"))

    assert "falls to the end: step 40 -> step 10" in change.detail


def test_a_script_that_is_not_ours_is_never_run() -> None:
    stranger = side_of_text("raise SystemExit('this was run')", "stranger")

    assert choice_changes(PLAIN, stranger) == ()


def test_a_script_that_would_do_something_when_loaded_is_never_run() -> None:
    here = edited('if __name__ == "__main__":', "if True:")
    other = side_of(script_of("experiment=tiny_sft", "scorer=seed_v1"), "seed")

    assert choice_changes(here, other) == ()
