"""What of a model the pinned transformers knows: types, keys of configs, attention, positions."""

import json
from pathlib import Path
from typing import Any

import pytest

from podproof.compiler.pins import POD_PINS
from podproof.harness.api import api_answer, tabled_versions
from podproof.harness.model_names import model_names, model_table
from podproof.harness.position_limit import position_limit
from podproof.harness.verdict import Surroundings
from podproof.runtime.errors import Problem
from podproof.runtime.plan import ModelInit, ModelPlan
from tests.harness.conftest import script_of

PINNED = POD_PINS["transformers"]


def named(plan: ModelPlan) -> list[Problem]:
    return list(model_names(plan, PINNED))


def random(**config: Any) -> ModelPlan:
    return ModelPlan(init=ModelInit.RANDOM, config=config, tokenizer_vocab_size=300)


def published(folder: Path, **config: Any) -> ModelPlan:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return ModelPlan(name_or_path=str(folder))


def problems_of(*overrides: str) -> tuple[Problem, ...]:
    return api_answer(script_of(*overrides), Surroundings())[1]


@pytest.mark.parametrize("version", tabled_versions("transformers"))
def test_every_described_transformers_has_a_table_of_its_models(version: str) -> None:
    table = model_table(version)

    assert table is not None
    assert {"llama", "qwen3", "gpt2"} <= table.config_keys.keys()
    assert "num_hidden_layers" in table.config_keys["llama"]


def test_the_table_has_the_causal_types_and_the_attention_of_the_installed_version() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    table = model_table(transformers.__version__)

    assert table is not None
    assert table.config_keys.keys() == MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()
    assert table.attention == {"eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()}


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2", "phi3", "gemma2", "bart", "mixtral"])
def test_the_table_has_every_key_that_a_config_of_the_installed_version_writes(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    table = model_table(transformers.__version__)
    assert table is not None

    written = transformers.AutoConfig.for_model(kind).to_dict()

    unknown = written.keys() - table.config_keys[kind] - table.common_keys
    assert {key for key in unknown if not key.startswith("_")} == set()


@pytest.mark.parametrize(
    ("config", "where", "says"),
    [
        ({"model_type": "lama"}, "model_type", "did you mean llama?"),
        ({"model_type": "t5"}, "model_type", "no causal language model"),
        ({"model_type": "bert"}, "model_type", "is_decoder=true"),
        ({"model_type": "llama", "num_layer": 4}, "num_layer", "did you mean num_hidden_layers?"),
        ({"model_type": "llama", "n_embd": 64}, "n_embd", "did you mean hidden_size?"),
        ({"model_type": "llama", "hiden_size": 64}, "hiden_size", "did you mean hidden_size?"),
    ],
)
def test_a_config_that_transformers_would_read_otherwise_is_refused(
    config: dict[str, Any], where: str, says: str
) -> None:
    (problem,) = named(random(**config))

    assert problem.where == f"model.config.{where}"
    assert says in f"{problem.what} {problem.way_out}"


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bert", "is_decoder": True},
        {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2},
        {"model_type": "llama", "rope_theta": 1e4, "rope_scaling": None, "torch_dtype": "bfloat16"},
        {"model_type": "llama", "sliding_window": 4096, "use_cache": True, "num_beams": 2},
        {"model_type": "llama", "notes_of_mine": "a copy", "_name_or_path": "me/a"},
        {"model_type": "llama", "num_hidden_layers": 2, "n_layer": 2},
    ],
)
def test_keys_that_a_config_takes_and_notes_that_are_like_none_pass(config: dict[str, Any]) -> None:
    assert named(random(**config)) == []


def test_a_published_config_is_asked_for_its_type_and_not_for_its_keys(tmp_path: Path) -> None:
    assert named(published(tmp_path, model_type="llama", num_layer=4)) == []

    (problem,) = named(published(tmp_path, model_type="bert"))

    assert problem.where == "model.name_or_path"


def test_code_of_the_repository_may_bring_any_type(tmp_path: Path) -> None:
    published(tmp_path, model_type="theirs")

    assert named(ModelPlan(name_or_path=str(tmp_path), trust_remote_code=True)) == []


def test_a_model_whose_config_is_not_at_hand_passes() -> None:
    assert named(ModelPlan(name_or_path="nobody/has-it")) == []


@pytest.mark.parametrize(
    "attention",
    ["eager", "sdpa", "flash_attention_3", "flex_attention", "paged|sdpa", "org/kernel@v1:part"],
)
def test_attention_that_transformers_has_passes(attention: str) -> None:
    assert named(ModelPlan(attn_implementation=attention)) == []


def test_attention_that_transformers_has_not_is_refused_with_the_nearest() -> None:
    (problem,) = named(ModelPlan(attn_implementation="flash_atention_2"))

    assert problem == Problem(
        "model.attn_implementation",
        f"transformers {PINNED} has no attention 'flash_atention_2'",
        "did you mean flash_attention_2?",
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ("experiment=tiny_sft", "method.max_length=1025"),
        ("experiment=tiny_sft", "model.config={model_type: gpt2, n_positions: 64}"),
        (
            "experiment=llama3_8b_qlora_sft",
            "pod.network_volume=abc",
            "model.name_or_path=meta-llama/Llama-2-7b-hf",
            "method.max_length=4097",
        ),
    ],
)
def test_rows_longer_than_the_positions_of_the_model_are_refused(
    overrides: tuple[str, ...],
) -> None:
    (problem,) = (item for item in problems_of(*overrides) if item.where == "method.max_length")

    assert problem.way_out.startswith("set method.max_length=")


@pytest.mark.parametrize(
    "overrides",
    [
        ("method.max_length=1024",),
        ("method.max_length=null",),
        ("method.max_length=2048", "+model.config.rope_scaling={rope_type: yarn, factor: 4.0}"),
        ("method.max_length=2048", "+model.config.rope_parameters={rope_type: linear, factor: 4}"),
        ("method.max_length=2048", "model.config={model_type: mamba}"),
    ],
)
def test_rows_within_positions_or_of_stretched_or_unknown_ones_pass(
    overrides: tuple[str, ...],
) -> None:
    plan = script_of("experiment=tiny_sft", *overrides).run.plan

    assert list(position_limit(plan)) == []
