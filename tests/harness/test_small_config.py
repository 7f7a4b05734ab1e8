"""A model's config made small keeps its architecture, and what hangs together."""

import pytest

from podproof.harness.small_config import family_of, shrunken_config


def test_heads_that_share_keys_go_on_to_share_them() -> None:
    grouped = shrunken_config({"num_attention_heads": 32, "num_key_value_heads": 8})
    each_its_own = shrunken_config({"num_attention_heads": 32, "num_key_value_heads": 32})

    assert (grouped["num_attention_heads"], grouped["num_key_value_heads"]) == (2, 1)
    assert each_its_own["num_key_value_heads"] == 2


def test_layers_of_several_kinds_stay_of_several_kinds() -> None:
    kinds = ["sliding_attention"] * 5 + ["full_attention"]

    small = shrunken_config({"num_hidden_layers": 12, "layer_types": kinds * 2})

    assert small["layer_types"] == ["sliding_attention", "full_attention"]


def test_the_factors_of_rotation_fit_the_smaller_heads() -> None:
    rope = {"rope_type": "longrope", "long_factor": [1.0] * 48, "short_factor": [1.0] * 48}

    assert len(shrunken_config({"rope_parameters": rope})["rope_parameters"]["long_factor"]) == 8


def test_what_is_no_size_stays_as_it_is() -> None:
    config = {"model_type": "qwen3", "vocab_size": 151936, "tie_word_embeddings": False}

    assert shrunken_config({**config, "use_cache": True}) == {**config, "use_cache": True}


def test_a_narrow_model_keeps_its_widths_and_heads_and_loses_layers() -> None:
    config = {"model_type": "codegen", "n_embd": 64, "n_head": 4, "n_layer": 3, "rotary_dim": 8}

    assert shrunken_config(config) == {**config, "n_layer": 2}


def test_a_wide_model_loses_both() -> None:
    small = shrunken_config({"hidden_size": 257, "num_attention_heads": 8, "num_hidden_layers": 3})

    assert small == {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama"),
        ("meta-llama/Llama-3.2-11B-Vision", None),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral"),
        ("Qwen/Qwen3-30B-A3B", "qwen3_moe"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2"),
        ("somebody/Qwen3-8B", None),
    ],
)
def test_a_well_known_name_tells_its_architecture(name: str, family: str | None) -> None:
    assert family_of(name) == family


def test_each_part_of_a_model_for_language_and_pictures_is_made_small() -> None:
    config = {
        "model_type": "gemma3",
        "text_config": {"hidden_size": 2560, "num_hidden_layers": 34},
        "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27},
        "quantization_config": {"bits": 8},
    }
    layers = {"hidden_size": 32, "num_hidden_layers": 2}

    assert shrunken_config(config) == {
        **config,
        "text_config": layers,
        "vision_config": layers,
    }


def test_a_head_that_is_all_rotated_stays_so() -> None:
    small = shrunken_config({"hidden_size": 7168, "head_dim": 64, "qk_rope_head_dim": 64})

    assert small["head_dim"] == small["qk_rope_head_dim"]


def test_the_heads_of_a_state_space_fill_its_expanded_width() -> None:
    small = shrunken_config({"hidden_size": 4096, "expand": 2, "num_heads": 128, "head_dim": 64})

    assert small["num_heads"] * small["head_dim"] == 2 * small["hidden_size"]


def test_what_is_said_of_one_layer_is_dropped_with_it() -> None:
    small = shrunken_config({"num_hidden_layers": 30, "per_layer_config": {"1": {}, "5": {}}})

    assert small["per_layer_config"] == {"1": {}}
