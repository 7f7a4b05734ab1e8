"""What all weights, trained without an adapter, ask of the config on rented GPUs."""

from collections.abc import Mapping
from typing import Any

import pytest

from podproof.compiler.argument_rules import whole_weights
from podproof.compiler.gpu_rules import GPU_RULES
from podproof.compiler.schema import Config
from podproof.runtime.plan import AdapterKind
from tests.compiler.conftest import changed

Values = Mapping[str, Any]

ALL_WEIGHTS: Values = {"adapter.kind": AdapterKind.NONE}
ZERO_2: Values = {"zero_optimization": {"stage": 2}}
ZERO_3: Values = {
    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}
}
PARTED: Values = {**ALL_WEIGHTS, "trainer.deepspeed": ZERO_3, "pod.gpu_count": 8}


@pytest.mark.parametrize("base", ["rented_sft", "rented_dpo", "rented_orpo"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_half_precision_are_refused(
    configs: Mapping[str, Config], base: str, dtype: str
) -> None:
    config = changed(configs[base], {**ALL_WEIGHTS, "model.dtype": dtype})

    (problem,) = whole_weights(config)

    assert problem.where == "model.dtype"
    assert dtype in problem.what
    assert "model.dtype=float32" in problem.way_out


@pytest.mark.parametrize(
    ("base", "values"),
    [
        ("rented_dpo", {}),
        ("rented_dpo", {**ALL_WEIGHTS, "model.dtype": "float32"}),
        ("rented_dpo", {**ALL_WEIGHTS, "model.dtype": "auto"}),
        ("rented_dpo", {**ALL_WEIGHTS, "trainer.fsdp": True}),
        ("rented_dpo", {**ALL_WEIGHTS, "trainer.deepspeed": ZERO_2}),
        ("rented_dpo", {**ALL_WEIGHTS, "trainer.optim": "stable_adamw"}),
        ("rented_dpo", {**ALL_WEIGHTS, "trainer.extra": {"optim_args": "use_kahan_summation=1"}}),
        ("sft", {"model.dtype": "bfloat16"}),
    ],
    ids=str,
)
def test_what_keeps_small_steps_is_not_refused(
    configs: Mapping[str, Config], base: str, values: Values
) -> None:
    assert list(whole_weights(changed(configs[base], values))) == []


def refused_keys(config: Config) -> list[str]:
    return [problem.where for rule in GPU_RULES for problem in rule(config)]


def test_no_reference_model_is_copied_from_weights_that_are_parted(
    configs: Mapping[str, Config],
) -> None:
    config = changed(configs["rented_dpo"], PARTED)

    assert refused_keys(config) == ["method.precompute_ref_log_probs"]


@pytest.mark.parametrize(
    ("base", "values"),
    [
        ("rented_dpo", {**PARTED, "method.precompute_ref_log_probs": True}),
        ("rented_dpo", {**PARTED, "trainer.deepspeed": ZERO_2}),
        ("rented_dpo", {**PARTED, "adapter.kind": AdapterKind.LORA}),
        ("rented_sft", PARTED),
        ("rented_orpo", PARTED),
    ],
    ids=str,
)
def test_what_needs_no_copy_is_not_refused(
    configs: Mapping[str, Config], base: str, values: Values
) -> None:
    assert refused_keys(changed(configs[base], values)) == []
