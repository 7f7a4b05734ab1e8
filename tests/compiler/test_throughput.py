"""Time and cost: operations counted as torch counts them, speeds learnt from what was seen."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from podproof.compiler.gpus import gpus
from podproof.compiler.interval import Interval
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.throughput import (
    ENOUGH_RUNS,
    PastRun,
    Workload,
    flops_per_second,
    flops_per_token,
    forward_flops_per_token,
    learnt,
    training_hours,
)
from podproof.compiler.training_setup import setup_of
from podproof.compiler.workload import RowsSeen, workload
from podproof.runtime.plan import AdapterKind, MethodName
from tests.compiler.shapes import adapter, config_of, model_of, setup, shape_of, with_adapter

LORA, QLORA = adapter(AdapterKind.LORA), adapter(AdapterKind.QLORA)
A100 = gpus()["NVIDIA A100 80GB PCIe"]
SPEEDS = st.floats(1e9, 1e15)
PRIORS = st.tuples(st.floats(1e10, 1e13), st.floats(1.0, 30.0)).map(
    lambda drawn: Interval(drawn[0], drawn[0] * drawn[1])
)
LENGTH = 48


def counted(model: Any) -> tuple[float, float]:
    """Return the operations a token costs forward, and in all, as torch's counter has them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    tokens = torch.zeros((2, LENGTH), dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids=tokens, use_cache=False).logits
        forward = counter.get_total_flops()
        logits.sum().backward()
    return forward / tokens.numel(), counter.get_total_flops() / tokens.numel()


def test_a_pass_forward_costs_what_torch_counts() -> None:
    forward, _ = counted(model_of(config_of("llama"), "eager"))

    # Plain attention also computes the half that causality throws away.
    shape = shape_of()
    thrown_away = 2 * shape.queries * LENGTH * shape.layers
    assert forward_flops_per_token(shape, LENGTH) + thrown_away == forward


@pytest.mark.parametrize("is_adapted", [False, True])
def test_training_costs_about_what_torch_counts(*, is_adapted: bool) -> None:
    model = model_of(config_of("llama"), "eager")
    plan = LORA if is_adapted else adapter(AdapterKind.NONE)
    _, whole = counted(with_adapter(model, plan) if is_adapted else model)

    found = flops_per_token(shape_of(), setup(adapter=plan), LENGTH)

    assert found == pytest.approx(whole, rel=0.12)


def test_recomputation_and_a_reference_cost_a_pass_forward_each() -> None:
    shape = shape_of()
    plain = flops_per_token(shape, setup(), LENGTH)
    again = flops_per_token(shape, setup(has_checkpointing=True), LENGTH)
    compared = flops_per_token(shape, setup(method=MethodName.DPO, is_compared=True), LENGTH)

    assert plain < again < compared
    assert flops_per_token(shape, setup(), LENGTH, in_head=False) < plain
    assert compared - plain == forward_flops_per_token(shape, LENGTH)


@given(PRIORS, st.lists(SPEEDS, max_size=ENOUGH_RUNS - 1))
def test_too_few_runs_teach_nothing(prior: Interval, seen: list[float]) -> None:
    assert learnt(prior, seen) == prior


@given(PRIORS, st.lists(SPEEDS, min_size=ENOUGH_RUNS, max_size=40))
def test_what_was_seen_in_the_middle_lies_inside(prior: Interval, seen: list[float]) -> None:
    import statistics

    found = learnt(prior, seen)

    assert found is not None
    assert found.low <= statistics.median(seen) <= found.high


@given(PRIORS, SPEEDS, st.integers(ENOUGH_RUNS, 100))
def test_runs_that_agree_narrow_the_interval_the_more_the_more_there_are(
    prior: Interval, speed: float, count: int
) -> None:
    inside = min(max(speed, prior.low), prior.high)
    fewer, more = learnt(prior, [inside] * count), learnt(prior, [inside] * (count * 10))

    assert fewer is not None
    assert more is not None
    assert more.high / more.low <= max(fewer.high / fewer.low, 1.6)
    assert fewer.high / fewer.low <= max(prior.high / prior.low, 1.6) * 1.0001


def test_speeds_that_are_no_numbers_are_left_out() -> None:
    prior = Interval(1.0, 2.0)

    assert learnt(prior, [float("nan"), float("inf"), 0.0, -1.0]) == prior


def test_only_runs_on_the_same_gpu_count_and_four_bits_apart() -> None:
    seen = 200e12
    others = [PastRun("NVIDIA A40", AdapterKind.LORA, seen)] * 9
    quantized = [PastRun(A100.gpu_id, AdapterKind.QLORA, seen)] * 9
    alike = [PastRun(A100.gpu_id, AdapterKind.NONE, seen)] * 9
    given = setup(adapter=LORA)

    prior = flops_per_second(A100, given, ())
    assert flops_per_second(A100, given, [*others, *quantized]) == prior
    found = flops_per_second(A100, given, [*others, *alike])
    assert found is not None
    assert prior is not None
    assert found.low > prior.low
    assert found.high / found.low < prior.high / prior.low


def test_a_gpu_without_a_known_peak_has_a_speed_only_by_experience() -> None:
    unknown = gpus()["NVIDIA RTX PRO 4500 Blackwell"]
    seen = [PastRun(unknown.gpu_id, AdapterKind.LORA, 50e12)] * 3

    assert flops_per_second(unknown, setup(adapter=LORA), ()) is None
    found = flops_per_second(unknown, setup(adapter=LORA), seen)
    assert found is not None
    assert found.low < 50e12 < found.high


def test_four_bits_and_full_precision_are_slower() -> None:
    half = flops_per_second(A100, setup(adapter=LORA), ())
    packed = flops_per_second(A100, setup(adapter=QLORA), ())
    whole = flops_per_second(A100, setup(weight_bytes=4, compute_bytes=4), ())

    assert half is not None
    assert packed is not None
    assert whole is not None
    assert packed.high < half.high
    assert whole.high < half.high


def test_more_gpus_take_less_time_and_more_tokens_take_more() -> None:
    shape, speed = shape_of(), Interval(1e12, 1e13)

    def hours(tokens: float, ranks: int) -> Interval:
        work = Workload(Interval(tokens, tokens), Interval(0.0, 0.0), Interval(0.0, 0.0))
        return training_hours(shape, setup(ranks=ranks), work, speed)

    assert hours(1e9, 1).low < hours(2e9, 1).low
    assert hours(1e9, 4).low == pytest.approx(hours(1e9, 1).low / 4)


def run_of(*overrides: str) -> Any:
    return lower(read(Request((*overrides, "pod.network_volume=abc"))))


def work_of(*overrides: str, rows: RowsSeen | None = None) -> Workload | None:
    plan = run_of(*overrides).plan
    return workload(plan, setup_of(plan), rows)


def test_rows_at_hand_say_how_many_tokens_there_will_be() -> None:
    found = work_of("experiment=tiny_sft", rows=RowsSeen(120, 0, 400.0))

    # 108 rows to train on, twelve times; of 400 bytes, and at most 96 tokens.
    assert found is not None
    assert found.train_tokens.low == pytest.approx(0.8 * 120 * 12 * 400 / 10)
    assert found.train_tokens.high == pytest.approx(0.8 * 120 * 12 * 96)


def test_rows_that_are_not_at_hand_are_at_most_as_many_as_the_config_takes() -> None:
    found = work_of("experiment=llama3_8b_qlora_sft")

    assert found is not None
    assert found.train_tokens == Interval(0.0, 40_000 * 2048.0)


def test_without_rows_or_a_limit_nothing_is_said() -> None:
    assert work_of("experiment=qwen3_8b_dpo") is None


def test_packed_steps_say_their_tokens_themselves() -> None:
    found = work_of("experiment=llama3_8b_qlora_sft", "trainer.max_steps=100")

    assert found is not None
    assert found.train_tokens.high == 100 * 2 * 8 * 2048
    assert found.train_tokens.low > 0.5 * found.train_tokens.high


def test_a_run_that_may_stop_by_itself_may_take_no_time() -> None:
    rows = RowsSeen(120, 0, 400.0)
    found = work_of("experiment=tiny_sft", "scorer.early_stopping.patience=3", rows=rows)

    assert found is not None
    assert found.train_tokens.low == 0 < found.train_tokens.high


def test_evaluations_are_counted_too() -> None:
    rows = RowsSeen(120, 0, 400.0)
    none = work_of("experiment=tiny_sft", "trainer.eval_strategy=no", rows=rows)
    some = work_of("experiment=tiny_sft", rows=rows)

    assert none is not None
    assert some is not None
    assert none.eval_tokens.high == 0 < some.eval_tokens.low
