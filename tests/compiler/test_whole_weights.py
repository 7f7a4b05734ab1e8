"""What all weights, trained without an adapter, ask of DeepSpeed on rented GPUs."""

from collections.abc import Mapping
from typing import Any

import pytest

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
