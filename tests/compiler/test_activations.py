"""Activations: the formula against the bytes that torch really keeps for the backward pass."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from podproof.compiler.activations import activations, kept_by_layer
from podproof.compiler.training_setup import TrainingSetup
from podproof.runtime.plan import AdapterKind, AdapterPlan
from tests.compiler.shapes import DENSE, adapter, config_of, model_of, setup, shape_of, with_adapter

FULL, LORA = AdapterPlan(kind=AdapterKind.NONE), adapter()
BATCH, LENGTH = 2, 48

# (adapter, bytes of a weight, bytes of what is computed)
SETUPS = [(FULL, 4, 4), (FULL, 2, 2), (FULL, 4, 2), (LORA, 4, 4), (LORA, 2, 2)]
# The plain layers of llama are met to the byte; others differ a little in what they cast.
ALIKE = ("llama", "mistral", "granite", "smollm3")


def kept_bytes(model: Any, *, is_mixed: bool) -> int:
    """Return the bytes of all tensors that the model's layers keep, parameters apart."""
    import torch

    parameters = {item.untyped_storage().data_ptr() for item in model.parameters()}
    kept: dict[int, int] = {}
    held = []

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)  # or its memory would be used again
        return tensor

    mixed: AbstractContextManager[Any] = nullcontext()
    if is_mixed:
        mixed = torch.autocast("cpu", dtype=torch.bfloat16)
    tokens = torch.randint(3, 300, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
    layers = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model.model.model
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), mixed:
        layers(input_ids=tokens, use_cache=False)
    return sum(kept.values())


def kept_by_one_layer(family: str, given: TrainingSetup) -> float:
    """Return what one layer more makes a model keep, for each token; casts of weights apart."""
    import torch

    dtype = torch.float32 if given.weight_bytes == 4 else torch.bfloat16
    is_mixed = given.compute_bytes != given.weight_bytes or not given.trains_all
    is_mixed = is_mixed and given.compute_bytes == 2
    bytes_of = []
    for layers in (2, 3):
        attention = "eager" if family == "gemma2" else "sdpa"
        model = model_of(config_of(family, num_hidden_layers=layers), attention).to(dtype)
        if not given.trains_all:
            model = with_adapter(model, given.adapter)
        bytes_of.append(kept_bytes(model.train(), is_mixed=is_mixed))
    shape = shape_of(family)
    cast = shape.linear_parameters if given.trains_all else 0
    if not given.trains_all:
        cast = shape.layers * sum(
            given.adapter.r * (linear.inputs + linear.outputs) for linear in shape.linears
        )
    copies = 2 * cast / shape.layers if is_mixed and given.compute_bytes != _held(given) else 0
    return (bytes_of[1] - bytes_of[0] - copies) / (BATCH * LENGTH)


def _held(given: TrainingSetup) -> int:
    # PEFT holds adapters in float32.
    return given.weight_bytes if given.trains_all else 4


def given_setup(plan: AdapterPlan, weight: int, compute: int, family: str) -> TrainingSetup:
    attention = "eager" if family == "gemma2" else "sdpa"
    widths = {"weight_bytes": weight, "compute_bytes": compute}
    return setup(adapter=plan, length=LENGTH, attention=attention, **widths)


@pytest.mark.parametrize(("plan", "weight", "compute"), SETUPS)
def test_a_layer_of_llama_keeps_what_the_formula_says_to_the_byte(
    plan: AdapterPlan, weight: int, compute: int
) -> None:
    given = given_setup(plan, weight, compute, "llama")

    assert kept_by_layer(shape_of(), given) == pytest.approx(kept_by_one_layer("llama", given))


@pytest.mark.slow
@pytest.mark.parametrize(("plan", "weight", "compute"), SETUPS)
@pytest.mark.parametrize("family", DENSE)
def test_a_layer_of_any_family_keeps_about_what_the_formula_says(
    family: str, plan: AdapterPlan, weight: int, compute: int
) -> None:
    given = given_setup(plan, weight, compute, family)
    tolerance = 1e-9 if family in ALIKE else 0.2

    measured = kept_by_one_layer(family, given)

    assert kept_by_layer(shape_of(family), given) == pytest.approx(measured, rel=tolerance)


def test_checkpointing_keeps_less() -> None:
    shape = shape_of(num_hidden_layers=12)
    whole = activations(shape, setup(), 1000)
    again = activations(shape, setup(has_checkpointing=True), 1000)

    assert again.high < whole.low


def test_plain_attention_keeps_a_probability_for_each_pair_of_tokens() -> None:
    short, long = (
        kept_by_layer(shape_of(), setup(attention="eager", length=length)) for length in (64, 128)
    )
    fused = kept_by_layer(shape_of(), setup(length=128))

    assert long - short == 4 * 64 * (4 + 2)
    assert fused < short
