"""A model of any architecture is made small, or another stands in and a note says so."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podproof.harness.small_model import with_small_model
from podproof.runtime.plan import AdapterPlan, ModelInit, ModelPlan, Plan
from tests.harness.conftest import script_of

pytest.importorskip("transformers")


def plan_of(**config: Any) -> Plan:
    plan = script_of("experiment=tiny_sft").run.plan
    model = ModelPlan(init=ModelInit.RANDOM, config=config, tokenizer_vocab_size=600)
    return replace(plan, model=model, adapter=AdapterPlan(target_modules=("q_proj",)))


@pytest.mark.parametrize("kind", ["deepseek_v3", "mamba2", "gptj", "gemma3", "gemma4_text"])
def test_a_wide_model_whose_sizes_hang_together_keeps_its_architecture(
    kind: str, tmp_path: Path
) -> None:
    small = with_small_model(plan_of(model_type=kind), tmp_path)

    assert small.plan.model.config["model_type"] == kind
    assert small.notes == (f"a {kind} of 2 layers",)


def test_one_that_cannot_be_made_small_has_a_stand_in_and_a_note(tmp_path: Path) -> None:
    small = with_small_model(plan_of(model_type="codegen"), tmp_path)

    assert small.plan.model.config["model_type"] == "llama"
    (note,) = small.notes
    assert "a codegen cannot be made small: RuntimeError" in note
    assert note.endswith("a llama stands in, adapter.target_modules untried")


def test_one_that_no_library_can_build_is_left_to_the_gate(tmp_path: Path) -> None:
    broken = plan_of(model_type="gpt2", n_embd=1000, n_head=7, activation_function="none")

    assert with_small_model(broken, tmp_path).plan.model.config["model_type"] == "gpt2"


def test_sizes_that_do_not_fit_each_other_are_left_to_the_gate(tmp_path: Path) -> None:
    broken = plan_of(model_type="mamba2", hidden_size=4000)

    with pytest.raises(Exception, match="hidden_size"):
        with_small_model(broken, tmp_path)


def test_one_that_is_too_large_even_with_two_layers_has_a_stand_in(tmp_path: Path) -> None:
    small = with_small_model(plan_of(model_type="llama", vocab_size=10_000_000), tmp_path)

    assert "640," in small.notes[0]
    assert "weights in 2 layers" in small.notes[0]


def test_a_model_that_is_not_at_hand_has_a_stand_in_of_its_family(tmp_path: Path) -> None:
    plan = plan_of()
    named = replace(plan, model=ModelPlan(name_or_path="Qwen/Qwen3-8B"))

    small = with_small_model(named, tmp_path)

    assert small.plan.model.config["model_type"] == "qwen3"
    assert small.plan.adapter == plan.adapter
