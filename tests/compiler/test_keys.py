"""Keys: what the schema knows, and what is answered to a slip."""

import pytest

from podproof.compiler.keys import did_you_mean, schema_at, unknown_key


@pytest.mark.parametrize(
    "key",
    [
        "name",
        "seed",
        "trainer",
        "trainer.learning_rate",
        "data.eval.fraction",
        "scorer.early_stopping.patience",
        "method.max_length",
        "pod.env.ANY_NAME",
        "model.config.rope.theta",
        "trainer.extra.anything.at.all",
    ],
)
def test_a_key_of_the_schema_is_known(key: str) -> None:
    assert unknown_key(key, "sft") is None


@pytest.mark.parametrize(
    "key", ["", "trainer.", "name.first", "adapter.target_modules.0", "data.eval.fraction.half"]
)
def test_nothing_lies_below_a_value(key: str) -> None:
    assert schema_at(key, "sft") is None


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("trainer.learnin_rate", "trainer.learning_rate"),
        ("trainer.lr", "trainer.learning_rate"),
        ("learning_rate", "trainer.learning_rate"),
        ("trainr.learning_rate", "trainer.learning_rate"),
        ("trainer.evaluation_strategy", "trainer.eval_strategy"),
        ("trainer.warmup_ratio", "trainer.warmup_steps"),
        ("trainer.gradient_checkpointing", "trainer.activation_checkpointing"),
        ("method.max_seq_length", "method.max_length"),
        ("model.max_length", "method.max_length"),
        ("model.torch_dtype", "model.dtype"),
        ("model.path", "model.name_or_path"),
        ("model_name_or_path", "model.name_or_path"),
        ("data.eval.fractoin", "data.eval.fraction"),
        ("scorer.patience", "scorer.early_stopping.patience"),
        ("pod.gpus", "pod.gpu"),
        ("sed", "seed"),
        ("trainr", "trainer"),
        ("pods", "pod"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(slip: str, meant: str) -> None:
    assert did_you_mean(slip, "sft") == f"did you mean {meant}?"


def test_the_place_typed_comes_before_the_same_word_elsewhere() -> None:
    # `name` stands in data and method too.
    assert did_you_mean("data.nme", "sft") == "did you mean data.name?"


@pytest.mark.parametrize("key", ["zzz", "trainer.zzz", "method.betta", "x"])
def test_a_key_like_no_other_is_answered_with_where_all_are_listed(key: str) -> None:
    assert did_you_mean(key, "sft") == "docs/reference/config.md lists every key"


def test_a_field_that_only_another_method_has_is_answered_with_that_method() -> None:
    answer = did_you_mean("method.packing", "dpo")

    assert answer == "method dpo has no such field; it belongs to sft"
