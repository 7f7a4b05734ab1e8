"""Values of the wrong type: each is told with a way out that fits it."""

import pytest

from tests.compiler.conftest import refusal


@pytest.mark.parametrize(
    ("typed", "way_out"),
    [
        ("adapter.kind=loraa", "did you mean adapter.kind=lora?"),
        ("trainer.eval_strategy=zzz", "set trainer.eval_strategy=steps"),
        ("method.name=sftt", "did you mean method.name=sft?"),
        ("trainer.eval_steps=often", "set trainer.eval_steps=1"),
        ("model.revision=3", "write it in quotes"),
        ("trainer.bf16=maybe", "docs/reference/config.md has every key with its type"),
    ],
)
def test_a_value_of_the_wrong_type_has_a_way_out(typed: str, way_out: str) -> None:
    key = typed.partition("=")[0]

    assert refusal("experiment=tiny_sft", typed)[key].way_out == way_out


def test_a_key_that_was_taken_away_is_told_to_be_set_instead() -> None:
    problem = refusal("experiment=tiny_sft", "~method.packing")["method.packing"]

    assert "was taken away" in problem.what
    assert problem.way_out == "write method.packing=VALUE"
