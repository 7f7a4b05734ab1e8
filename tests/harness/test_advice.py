"""The data gate says when there is little to choose a checkpoint by; it refuses nothing for it."""

from pathlib import Path

from podproof.harness.data import data_answer
from podproof.harness.verdict import Surroundings
from tests.harness.conftest import AT_HAND, script_of

HUB = (
    "experiment=tiny_sft",
    "data.source=hub",
    "data.path=org/rows",
    "data.eval.split=test",
    "data.eval.fraction=null",
)


def test_few_rows_and_evaluations_are_told_with_numbers_and_are_no_problem() -> None:
    summary, problems, _ = data_answer(script_of("experiment=tiny_sft"), AT_HAND)

    assert problems == ()
    assert "24 evaluation rows are few to choose by (regret 0.127 with 8" in summary
    assert "12 evaluations are few to choose from (regret 0.108 with 5" in summary


def test_of_rows_nobody_has_seen_only_what_the_config_says_is_told() -> None:
    limited = script_of(*HUB, "data.max_eval_rows=16", "trainer.max_steps=24")

    summary, problems, _ = data_answer(limited, Surroundings((Path(),)))

    assert problems == ()
    assert "hub rows are checked on the pod" in summary
    assert "16 evaluation rows are few" in summary
    assert "2 evaluations are few" in summary


def test_of_rows_nobody_has_seen_nothing_is_guessed() -> None:
    summary, _, _ = data_answer(script_of(*HUB), Surroundings((Path(),)))

    assert summary == "hub rows are checked on the pod, before training"
