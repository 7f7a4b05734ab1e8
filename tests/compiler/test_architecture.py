"""Shapes: every weight counted as transformers and the models' own pages count them."""

from typing import Any

import pytest

from podproof.compiler.architecture import FAMILIES, Architecture, NotEstimated, architecture_of
from podproof.compiler.model_config import architecture_at_hand, known_models
from podproof.compiler.trainable import adapter_parameters, trainable_parameters
from podproof.runtime.plan import AdapterKind, ModelInit, ModelPlan
from tests.compiler.shapes import DENSE, adapter, config_of, model_of, shape_of, with_adapter

VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"attention_bias": True, "mlp_bias": True},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False, "num_hidden_layers": 3},
)
# What a family's config class takes for itself when a config does not say.
UNSAID = {"head_dim": None, "num_key_value_heads": None}


def parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "variant",
    [VARIANTS[0], *(pytest.param(variant, marks=pytest.mark.slow) for variant in VARIANTS[1:])],
    ids=str,
)
def test_parameters_are_as_many_as_transformers_makes(family: str, variant: dict[str, Any]) -> None:
    config = config_of(family, **variant)

    assert shape_of(family, **variant).parameters == parameters(model_of(config, "eager", "meta"))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_config_leaves_out_is_taken_as_transformers_takes_it(family: str) -> None:
    config = {
        key: value
        for key, value in config_of(family, num_attention_heads=32, hidden_size=128).items()
        if key not in UNSAID
    }
    found = architecture_of(config)

    assert isinstance(found, Architecture)
    assert found.parameters == parameters(model_of(config, "eager", "meta"))


@pytest.mark.parametrize("entry", known_models(), ids=lambda entry: entry["ids"][0])
def test_the_count_of_a_well_known_model_is_the_one_its_page_states(entry: Any) -> None:
    found = architecture_of(entry["config"])

    assert isinstance(found, Architecture)
    assert found.parameters == entry["parameters"]


@pytest.mark.parametrize(
    "targets",
    [("all-linear",), ("q_proj", "v_proj"), ("self_attn.o_proj", "gate_proj"), ("nothing",)],
    ids=str,
)
@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3"])
def test_adapters_are_as_large_as_peft_makes_them(family: str, targets: tuple[str, ...]) -> None:
    plan = adapter(target_modules=targets)
    names = {linear.name for linear in shape_of(family).linears}
    wanted = {target.rpartition(".")[2] for target in targets}
    if not wanted & {"all-linear", *names}:
        assert adapter_parameters(shape_of(family), plan) == 0
        return

    adapted = with_adapter(model_of(config_of(family), device="meta"), plan)

    trained = sum(item.numel() for item in adapted.parameters() if item.requires_grad)
    assert adapter_parameters(shape_of(family), plan) == trained


def test_trained_biases_and_saved_modules_count() -> None:
    shape = shape_of("qwen2")
    plan = adapter(bias="lora_only", target_modules=("q_proj",), modules_to_save=("lm_head",))

    adapted = with_adapter(model_of(config_of("qwen2"), device="meta"), plan)

    trained = sum(item.numel() for item in adapted.parameters() if item.requires_grad)
    assert adapter_parameters(shape, plan) == trained


def test_every_weight_is_trained_without_an_adapter() -> None:
    plan = adapter(AdapterKind.NONE)

    assert trainable_parameters(shape_of(), plan) == shape_of().parameters


def test_experts_work_on_a_token_only_as_many_as_are_chosen() -> None:
    shape = shape_of("mixtral")

    assert shape.experts is not None
    assert shape.working_parameters < shape.layers * shape.layer_parameters
    assert shape_of(DENSE[0]).working_parameters == shape_of(DENSE[0]).linear_parameters


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "mamba"}, "mamba"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"head_dim": "wide"}, "cannot be read"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantized already"),
    ],
    ids=str,
)
def test_what_cannot_be_counted_is_not_estimated_and_says_why(
    change: dict[str, Any], reason: str
) -> None:
    found = architecture_of(config_of("llama", **change))

    assert isinstance(found, NotEstimated)
    assert reason in found.reason


def test_layers_of_which_only_some_have_experts_are_not_estimated() -> None:
    found = architecture_of(config_of("qwen3_moe", mlp_only_layers=[0]))

    assert isinstance(found, NotEstimated)


def test_a_model_made_from_nothing_has_the_vocabulary_of_its_tokenizer() -> None:
    plan = ModelPlan(init=ModelInit.RANDOM, config=config_of("llama"), tokenizer_vocab_size=1024)

    found = architecture_at_hand(plan)

    assert isinstance(found, Architecture)
    assert found.vocabulary == 1024


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import json

    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(config_of("qwen3")))
    return folder


def test_a_models_folder_is_read(folder: Any) -> None:
    found = architecture_at_hand(ModelPlan(name_or_path=str(folder)))

    assert found == shape_of("qwen3")


def test_the_hubs_cache_is_read(
    folder: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--me--mine"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    folder.rename(repository / "snapshots")
    (repository / "snapshots" / "abc").mkdir()
    (repository / "snapshots" / "config.json").rename(repository / "snapshots/abc/config.json")

    assert architecture_at_hand(ModelPlan(name_or_path="me/mine")) == shape_of("qwen3")
    assert isinstance(
        architecture_at_hand(ModelPlan(name_or_path="me/mine", revision="other")), NotEstimated
    )


def test_a_broken_config_is_as_good_as_none(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text("{")

    found = architecture_at_hand(ModelPlan(name_or_path=str(tmp_path)))

    assert isinstance(found, NotEstimated)
    assert "no config" in found.reason
