"""Memory: the parts that can be counted are counted, and the laws of the whole hold."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from podproof.compiler.interval import Interval
from podproof.compiler.lower import lower
from podproof.compiler.memory import (
    MemoryNeed,
    gradients,
    memory_need,
    optimizer,
    optimizer_bytes,
    reference,
    trained_width,
    weights,
)
from podproof.compiler.read import Request, read
from podproof.compiler.training_setup import Sharding, TrainingSetup, setup_of, smallest
from podproof.runtime.plan import AdapterKind, MethodName
from tests.compiler.shapes import adapter, config_of, model_of, setup, shape_of, with_adapter

FULL = adapter(AdapterKind.NONE)
LORA, QLORA = adapter(AdapterKind.LORA), adapter(AdapterKind.QLORA)
LARGE: dict[str, Any] = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8}
OPTIMS = ("adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit", "sgd", "adafactor", "no such")

SETUPS = st.builds(
    setup,
    method=st.sampled_from(MethodName),
    adapter=st.sampled_from((FULL, LORA, QLORA)),
    weight_bytes=st.sampled_from((2, 4)),
    batch=st.integers(1, 64),
    eval_batch=st.integers(1, 64),
    accumulation=st.integers(1, 8),
    has_checkpointing=st.booleans(),
    optim=st.sampled_from(OPTIMS),
    ranks=st.sampled_from((1, 2, 8)),
    is_compared=st.booleans(),
)
LENGTHS = st.integers(8, 8192)


def need(given: TrainingSetup, length: int = 2048, **changes: Any) -> MemoryNeed:
    return memory_need(shape_of(**{**LARGE, **changes}), given, length)


def is_at_most(one: Interval, other: Interval) -> bool:
    return one.low <= other.low and one.high <= other.high


@pytest.mark.parametrize("weight_bytes", [2, 4])
def test_weights_gradients_and_adams_states_are_counted_to_the_byte(weight_bytes: int) -> None:
    import torch

    dtype = torch.float32 if weight_bytes == 4 else torch.bfloat16
    model = model_of(config_of("llama")).to(dtype)
    adam = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.tensor([[5, 6, 7]])).logits.sum().backward()
    adam.step()

    def held(tensors: Any) -> int:
        return sum(tensor.nbytes for tensor in tensors)

    moments = [state[key] for state in adam.state.values() for key in ("exp_avg", "exp_avg_sq")]
    given = setup(weight_bytes=weight_bytes, compute_bytes=weight_bytes)
    shape = shape_of()
    assert weights(shape, given) == Interval.exactly(held(model.parameters()))
    assert gradients(shape, given) == Interval.exactly(
        held(item.grad for item in model.parameters())
    )
    assert optimizer(shape, given) == Interval.exactly(held(moments))


def test_adapters_on_half_precision_are_held_in_full_as_peft_holds_them() -> None:
    import torch

    adapted = with_adapter(model_of(config_of("llama")).to(torch.bfloat16), LORA)
    held = sum(item.nbytes for item in adapted.parameters())

    assert weights(shape_of(), setup(adapter=LORA)) == Interval.exactly(held)


def test_four_bits_take_a_little_over_half_a_byte() -> None:
    shape = shape_of(**LARGE)
    held = weights(shape, setup(adapter=QLORA)).low
    beside = 2 * (shape.parameters - shape.linear_parameters) + 2 * 8 * shape.layers * sum(
        linear.inputs + linear.outputs for linear in shape.linears
    )

    assert held - beside == pytest.approx(shape.linear_parameters * 4.127 / 8, rel=1e-3)


@given(SETUPS, LENGTHS)
def test_a_low_end_is_never_above_its_high_end(given: TrainingSetup, length: int) -> None:
    found = need(given, length)

    for part in (*found.parts.values(), found.training, found.evaluation, found.total):
        assert 0 <= part.low <= part.high


@given(SETUPS, LENGTHS)
def test_more_rows_longer_rows_and_more_layers_need_no_less(
    given: TrainingSetup, length: int
) -> None:
    least = need(given, length).total

    assert is_at_most(least, need(replace(given, batch=given.batch + 1), length).total)
    assert is_at_most(least, need(given, length + 8).total)
    assert is_at_most(least, need(given, length, num_hidden_layers=9).total)


@given(SETUPS, LENGTHS)
def test_what_is_trained_less_needs_no_more(given: TrainingSetup, length: int) -> None:
    given = replace(given, weight_bytes=2, is_compared=False)

    def standing(kind: Any) -> Interval:
        parts = need(replace(given, adapter=kind), length).parts
        return Interval.total(parts[name] for name in ("weights", "gradients", "optimizer"))

    assert is_at_most(standing(QLORA), standing(LORA))
    assert is_at_most(standing(LORA), standing(FULL))


@given(SETUPS, st.sampled_from((2, 4, 8)))
def test_sharding_divides_what_it_shards(given: TrainingSetup, ranks: int) -> None:
    shape = shape_of(**LARGE)
    alone = replace(given, ranks=1, sharding=Sharding.FSDP)
    shared = replace(alone, ranks=ranks)

    for part in (weights, gradients, optimizer):
        whole, share = part(shape, alone), part(shape, shared)
        assert share.low == pytest.approx(whole.low / ranks)
        assert share.high == pytest.approx(whole.high / ranks)


def test_each_stage_of_zero_shards_more() -> None:
    shape = shape_of(**LARGE)
    stages = [
        setup(sharding=Sharding.ZERO, zero_stage=stage, ranks=8, optim="adamw_torch")
        for stage in (1, 2, 3)
    ]
    plain = setup(ranks=8, optim="adamw_torch")

    states = [optimizer(shape, given).low for given in (plain, *stages)]
    grads = [gradients(shape, given).low for given in (plain, *stages)]
    held = [weights(shape, given).low for given in (plain, *stages)]
    assert states[1] == states[2] == states[3] == states[0] / 8
    assert grads[0] == grads[1] == 8 * grads[2] == 8 * grads[3]
    assert held[0] == held[1] == held[2] == 8 * held[3]


def test_mixed_precision_with_deepspeed_costs_twelve_bytes_a_weight_shared_out() -> None:
    shape = shape_of(**LARGE)
    given = setup(sharding=Sharding.ZERO, zero_stage=1, ranks=4, optim="adamw_torch")

    assert optimizer(shape, given).high == 12 * shape.parameters / 4


def test_fsdp_trains_in_full_precision_what_it_computes_in_half() -> None:
    assert trained_width(setup(sharding=Sharding.FSDP, ranks=2)) == 4
    assert trained_width(setup(sharding=Sharding.NONE)) == 2


def test_four_bit_adapters_are_half_precision_but_for_orpo() -> None:
    assert trained_width(setup(adapter=QLORA)) == 2
    assert trained_width(setup(adapter=QLORA, method=MethodName.ORPO)) == 4


def test_a_reference_model_is_as_large_as_the_model() -> None:
    shape = shape_of(**LARGE)

    assert reference(shape, setup(is_compared=True)).low == 2 * shape.parameters
    assert reference(shape, setup(is_compared=True, adapter=LORA)).high == 0
    assert reference(shape, setup(is_compared=False)).high == 0


def test_orpo_holds_whole_logits_where_others_hold_tiles() -> None:
    sizes = {"vocab_size": 128_000}
    sft = need(setup(method=MethodName.SFT, batch=16), **sizes).parts["logits"]
    orpo = need(setup(method=MethodName.ORPO, batch=16), **sizes).parts["logits"]

    # 2 sequences a row, 16 rows of 2,048 tokens, 128,000 logits of 4 bytes at least.
    assert orpo.low >= 2 * 16 * 2048 * 128_000 * 4
    assert sft.high < orpo.low / 10


def test_gradients_and_activations_are_not_there_at_once_with_one_micro_batch() -> None:
    once, twice = need(setup(accumulation=1)), need(setup(accumulation=2))

    assert once.total.low < twice.total.low
    assert once.total.high == twice.total.high


@pytest.mark.parametrize("optim", ["paged_adamw_8bit", "paged_adamw_32bit", "paged_lion_8bit"])
def test_paged_states_may_all_lie_in_the_memory_of_the_host(optim: str) -> None:
    assert optimizer_bytes(optim, 2).low == 0 < optimizer_bytes(optim, 2).high


def plan_of(*overrides: str) -> Any:
    return lower(read(Request((*overrides, "pod.network_volume=abc")))).plan


def test_a_plan_is_read_as_its_trainer_will_read_it() -> None:
    found = setup_of(plan_of("experiment=llama3_8b_qlora_sft"))

    assert found.is_quantized
    assert found.is_packed
    assert found.has_checkpointing
    assert (found.batch, found.accumulation, found.length) == (2, 8, 2048)
    assert (found.weight_bytes, found.compute_bytes) == (2, 2)


def test_fsdp_is_read_with_its_own_recomputation() -> None:
    found = setup_of(plan_of("experiment=qwen3_8b_full_sft"))

    assert found.sharding is Sharding.FSDP
    assert found.has_checkpointing
    assert found.ranks == 8


@pytest.mark.parametrize(
    ("override", "has_reference"),
    [("adapter=none", True), ("adapter=lora", False)],
)
def test_only_dpo_of_every_weight_has_a_reference_model(
    override: str, *, has_reference: bool
) -> None:
    assert setup_of(plan_of("experiment=tiny_dpo", override)).has_reference is has_reference
    assert not setup_of(plan_of("experiment=tiny_orpo", override)).has_reference


def test_precomputed_log_probabilities_need_no_reference_model() -> None:
    plan = plan_of("experiment=tiny_dpo", "method.precompute_ref_log_probs=true")

    assert not setup_of(plan).has_reference


def test_the_smallest_batches_are_those_that_recovery_comes_down_to() -> None:
    plan = plan_of(
        "experiment=tiny_sft",
        "trainer.per_device_train_batch_size=16",
        "trainer.per_device_eval_batch_size=3",
        "recovery.oom.max_halvings=2",
    )

    found = smallest(plan)

    assert (found.batch, found.accumulation, found.eval_batch) == (4, 4, 1)


@pytest.mark.parametrize("optim", ["galore_adamw_layerwise", "lomo", "adalomo"])
def test_what_steps_layer_by_layer_may_hold_no_gradients(optim: str) -> None:
    assert gradients(shape_of(), setup(optim=optim)).low == 0
    assert gradients(shape_of(), setup(optim="adamw_torch")).low > 0
