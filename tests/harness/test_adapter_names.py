"""Names of modules, held against a model's own; PEFT passes over one that it does not find."""

import pytest

from podproof.compiler.architecture import NotEstimated
from podproof.compiler.model_config import architecture_at_hand
from podproof.harness.adapter_names import adapter_names
from podproof.runtime.errors import Problem
from podproof.runtime.plan import AdapterKind, AdapterPlan, ModelInit, ModelPlan
from tests.compiler.shapes import DENSE, WITH_EXPERTS, config_of, model_of

QWEN = ModelPlan(name_or_path="Qwen/Qwen3-8B")


def of_family(family: str) -> ModelPlan:
    return ModelPlan(init=ModelInit.RANDOM, config=config_of(family), tokenizer_vocab_size=300)


def lora(*targets: str, r: int = 8, saved: tuple[str, ...] = ()) -> AdapterPlan:
    return AdapterPlan(target_modules=targets or ("all-linear",), r=r, modules_to_save=saved)


def problems(model: ModelPlan, adapter: AdapterPlan) -> list[Problem]:
    return list(adapter_names(model, adapter))


def test_a_typo_among_targets_is_refused_with_the_name_that_was_meant() -> None:
    (problem,) = problems(QWEN, lora("q_proj", "k_proj", "v_porj"))

    assert problem.where == "adapter.target_modules"
    assert "'v_porj', and PEFT passes over it without a word" in problem.what
    assert problem.way_out.startswith("did you mean v_proj? it has q_proj, ")


@pytest.mark.parametrize("target", ["query_key_value", "c_attn", "proj", "mlp", "norm"])
def test_a_target_that_is_no_linear_module_of_the_model_is_refused(target: str) -> None:
    assert [item.where for item in problems(QWEN, lora(target))] == ["adapter.target_modules"]


@pytest.mark.parametrize(
    "target",
    [
        "q_proj",
        "self_attn.q_proj",
        "layers.35.mlp.up_proj",
        "model.layers.0.mlp.up_proj",
        "lm_head",
    ],
)
def test_a_target_at_the_end_of_a_path_passes(target: str) -> None:
    assert problems(QWEN, lora(target)) == []


def test_a_layer_that_the_model_does_not_reach_is_refused() -> None:
    assert problems(QWEN, lora("layers.36.mlp.up_proj")) != []


@pytest.mark.parametrize("name", ["lm_heads", "wte", "score"])
def test_a_saved_module_that_the_model_lacks_is_refused(name: str) -> None:
    (problem,) = problems(QWEN, lora(saved=("embed_tokens", name)))

    assert problem.where == "adapter.modules_to_save"


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens", "model.norm", "q_norm", "head", "mlp"])
def test_a_saved_module_whose_path_ends_so_passes(name: str) -> None:
    assert problems(QWEN, lora(saved=(name,))) == []


def test_a_rank_that_no_matrix_can_have_is_refused() -> None:
    (problem,) = problems(of_family("llama"), lora(r=65))

    assert problem.where == "adapter.r"
    assert problems(of_family("llama"), lora(r=64)) == []


def test_a_rank_that_only_some_matrices_can_have_passes() -> None:
    assert problems(of_family("llama"), lora("k_proj", "q_proj", r=64)) == []


@pytest.mark.parametrize("family", WITH_EXPERTS)
def test_of_families_with_experts_nothing_is_claimed(family: str) -> None:
    assert problems(of_family(family), lora("gate_proj", "w1")) == []


@pytest.mark.parametrize(
    "model",
    [
        ModelPlan(name_or_path="nobody/has-it"),
        ModelPlan(name_or_path="Qwen/Qwen3-8B", trust_remote_code=True),
        ModelPlan(init=ModelInit.RANDOM, config={"model_type": "gpt2"}),
    ],
)
def test_a_model_whose_modules_are_not_known_passes(model: ModelPlan) -> None:
    assert problems(model, lora("c_attn", saved=("wte",))) == []


def test_without_an_adapter_its_names_do_not_matter() -> None:
    assert problems(QWEN, AdapterPlan(kind=AdapterKind.NONE, target_modules=("c_attn",))) == []


@pytest.mark.parametrize("family", DENSE)
def test_every_module_of_the_real_model_passes_as_transformers_names_it(family: str) -> None:
    torch = pytest.importorskip("torch")
    plan = of_family(family)
    model = model_of(config_of(family), "eager", "meta")
    modules = [name for name, _ in model.named_modules() if name]
    linear = [name for name, item in model.named_modules() if isinstance(item, torch.nn.Linear)]

    found = problems(plan, lora(*linear, saved=tuple(modules)))

    assert not isinstance(architecture_at_hand(plan), NotEstimated)
    assert found == []
