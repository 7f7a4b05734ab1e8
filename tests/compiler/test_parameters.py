"""Trained parameters, against what PEFT and transformers count for models they built."""

import pytest

from podproof.compiler.parameters import trainable_parameters
from podproof.runtime.plan import AdapterKind, AdapterPlan

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "vocab_size": 500,
    "tie_word_embeddings": True,
}
QWEN = {**LLAMA, "model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": False}


# As PEFT 0.21.2 counts them of the model that transformers builds from the config.
COUNTS = (
    (LLAMA, AdapterPlan(r=8), 26_880),
    (LLAMA, AdapterPlan(r=16, target_modules=("q_proj", "v_proj")), 10_752),
    (QWEN, AdapterPlan(r=4), 15_744),
    (QWEN, AdapterPlan(r=4, target_modules=("down_proj",), modules_to_save=("lm_head",)), 34_688),
)
# All parameters of LLAMA as transformers builds it, norms included.
WHOLE = 161_472


@pytest.mark.parametrize(("config", "adapter", "count"), COUNTS)
def test_the_count_is_that_of_peft(
    config: dict[str, object], adapter: AdapterPlan, count: int
) -> None:
    assert trainable_parameters(config, adapter) == count


def test_norms_and_biases_are_less_than_a_hundredth_of_a_whole_model() -> None:
    whole = trainable_parameters(LLAMA, AdapterPlan(kind=AdapterKind.NONE))

    assert whole is not None
    assert 0.99 * WHOLE < whole <= WHOLE


@pytest.mark.parametrize("config", [{}, {"model_type": "mamba"}, {"model_type": "llama"}])
def test_a_model_that_is_not_known_is_not_guessed(config: dict[str, object]) -> None:
    assert trainable_parameters(config, AdapterPlan()) is None
