"""The memory gate: it refuses what is sure to fail, says what may, and lets the rest pass."""

from dataclasses import replace
from pathlib import Path

import pytest

from podproof.compiler.architecture import NotEstimated
from podproof.compiler.estimate import estimate
from podproof.compiler.throughput import PastRun
from podproof.harness.gates import clear
from podproof.harness.judgement import judgement
from podproof.harness.memory import memory_answer, rows_seen
from podproof.harness.report import judgement_to_dict
from podproof.harness.verdict import Surroundings
from podproof.runtime.errors import Problem
from podproof.runtime.plan import AdapterKind, DataPlan, DataSource
from tests.harness.conftest import AT_HAND, script_of

RENTED = ("pod.network_volume=abc", "gates=static")
FULL_DPO = ("experiment=qwen3_8b_dpo", "adapter=none", "model.dtype=float32")


def problems_of(*overrides: str) -> tuple[Problem, ...]:
    return memory_answer(script_of(*overrides, *RENTED), AT_HAND)[1]


def summary_of(*overrides: str) -> str:
    return memory_answer(script_of(*overrides, *RENTED), AT_HAND)[0]


def test_a_run_that_cannot_fit_is_refused_with_the_gpu_the_parts_and_a_way_out() -> None:
    (problem,) = problems_of(*FULL_DPO, "pod.gpu=[NVIDIA A40]")

    assert problem.where == "pod.gpu"
    assert "NVIDIA A40 has 48 GB of memory" in problem.what
    for part in ("weights", "reference model", "optimizer", "gradients"):
        assert part in problem.what
    assert "adapter=lora" in problem.way_out


def test_each_gpu_of_the_list_that_is_too_small_is_refused_and_no_other() -> None:
    gpus = "pod.gpu=[NVIDIA A40,NVIDIA B200,NVIDIA RTX A5000]"

    found = problems_of(*FULL_DPO, gpus)

    assert [problem.what.partition(" has")[0] for problem in found] == [
        "NVIDIA A40",
        "NVIDIA RTX A5000",
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        ("experiment=llama3_8b_qlora_sft",),
        ("experiment=llama3_8b_qlora_sft", "pod.gpu=[NVIDIA GeForce RTX 3080]"),
        ("experiment=qwen3_8b_dpo",),
        ("experiment=mistral_7b_orpo",),
        ("experiment=qwen3_8b_full_sft",),
        ("experiment=qwen3_8b_dpo", "pod.gpu=[NVIDIA RTX A5000]"),
        (*FULL_DPO, "pod.gpu=[NVIDIA B200]"),
    ],
    ids=str,
)
def test_what_may_fit_is_not_refused(overrides: tuple[str, ...]) -> None:
    assert problems_of(*overrides) == ()


def test_a_batch_that_may_not_fit_is_told_since_recovery_halves_it() -> None:
    large = "trainer.per_device_train_batch_size=64"

    assert "the batch will be halved" in summary_of("experiment=qwen3_8b_dpo", large)
    assert problems_of("experiment=qwen3_8b_dpo", large) == ()
    assert "halved" not in summary_of("experiment=qwen3_8b_dpo")


def test_packed_rows_that_no_halving_makes_fit_are_refused() -> None:
    long = ("method.max_length=400000", "pod.gpu=[NVIDIA GeForce RTX 4090]")

    assert problems_of("experiment=llama3_8b_qlora_sft", *long)
    unpacked = ("method.packing=false", "method.eval_packing=null")
    assert problems_of("experiment=llama3_8b_qlora_sft", *unpacked, *long) == ()


def test_a_model_whose_config_is_not_at_hand_is_not_estimated_and_not_refused() -> None:
    script = script_of(*FULL_DPO, "model.name_or_path=me/unheard-of", *RENTED)

    summary, problems, details = memory_answer(script, AT_HAND)

    assert summary == "memory not estimated: no config of me/unheard-of is at hand"
    assert problems == ()
    assert "unheard-of" in details["not_estimated"]


def test_experts_in_four_bits_are_not_estimated() -> None:
    script = script_of(
        "experiment=llama3_8b_qlora_sft", "model.name_or_path=Qwen/Qwen3-30B-A3B", *RENTED
    )

    assert isinstance(estimate(script.run), NotEstimated)


def test_hours_that_cannot_suffice_are_refused() -> None:
    steps = ("trainer.max_steps=100000", "pod.max_hours=1")

    (problem,) = problems_of("experiment=llama3_8b_qlora_sft", *steps)

    assert problem.where == "pod.max_hours"
    assert "gates.skip.memory" in problem.way_out
    assert problems_of("experiment=llama3_8b_qlora_sft", steps[0], "pod.max_hours=720") == ()


def test_hours_that_may_not_suffice_are_told() -> None:
    assert "may end it first" in summary_of("experiment=llama3_8b_qlora_sft")
    enough = ("trainer.max_steps=100", "pod.max_hours=24")
    assert "may end it first" not in summary_of("experiment=llama3_8b_qlora_sft", *enough)


def test_a_budget_that_cannot_suffice_is_refused() -> None:
    steps = ("trainer.max_steps=100000", "pod.max_hours=720")

    (problem,) = problems_of("experiment=llama3_8b_qlora_sft", *steps, "pod.max_usd=1")

    assert problem.where == "pod.max_usd"
    assert problems_of("experiment=llama3_8b_qlora_sft", *steps, "pod.max_usd=10000") == ()


def test_a_run_that_may_stop_early_is_not_refused_for_its_hours() -> None:
    early = ("scorer.early_stopping.patience=3", "trainer.max_steps=100000", "pod.max_hours=1")

    assert problems_of("experiment=llama3_8b_qlora_sft", *early) == ()


def test_a_pod_without_a_gpu_is_held_against_nothing() -> None:
    summary, problems, _ = memory_answer(script_of("experiment=tiny_sft"), AT_HAND)

    assert problems == ()
    assert "no GPU to hold them against" in summary


def test_past_runs_narrow_the_hours_and_the_summary_says_from_how_many() -> None:
    script = script_of("experiment=llama3_8b_qlora_sft", *RENTED)
    seen = (PastRun("NVIDIA RTX A6000", AdapterKind.QLORA, 40e12),) * 8

    before = memory_answer(script, AT_HAND)[2]["devices"][0]["full_step_s"]
    summary, _, details = memory_answer(script, replace(AT_HAND, past_runs=seen))
    after = details["devices"][0]["full_step_s"]

    assert after[1] / after[0] < before[1] / before[0]
    assert "learnt from 8 runs" in summary


def test_a_processor_has_hours_only_once_it_was_seen_at_work() -> None:
    script = script_of("experiment=tiny_sft")
    seen = (PastRun("cpu", AdapterKind.NONE, 1e9),) * 3

    assert "not estimated" in memory_answer(script, AT_HAND)[0]
    assert "this machine: a full step" in memory_answer(script, replace(AT_HAND, past_runs=seen))[0]


@pytest.mark.parametrize(
    ("source", "text", "rows"),
    [
        (DataSource.JSONL, '{"text": "a"}\n\n{"text": "b"}\n', 2),
        (DataSource.JSON, '[{"text": "a"}, {"text": "b"}, {"text": "c"}]', 3),
        (DataSource.JSON, "{broken", None),
        (DataSource.JSONL, "", None),
        (DataSource.PARQUET, "PAR1", None),
        (DataSource.HUB, "", None),
    ],
)
def test_rows_are_counted_where_they_can_be(
    tmp_path: Path, source: DataSource, text: str, rows: int | None
) -> None:
    (tmp_path / "rows").write_text(text)

    found = rows_seen(DataPlan(source=source, path="rows"), (tmp_path,))

    assert (None if found is None else found.train) == rows


def test_the_details_are_in_the_report_for_machines() -> None:
    script = script_of("experiment=qwen3_8b_dpo", *RENTED)

    verdicts = judgement_to_dict(judgement("", "", clear(script, AT_HAND)))["verdicts"]

    verdict = next(item for item in verdicts if item["gate"] == "memory")
    assert verdict["details"] == memory_answer(script, AT_HAND)[2]
    assert verdict["details"]["trainable_parameters"] == 87_293_952
    low, high = verdict["details"]["memory_gb"]
    assert 15 < low < high < 80


def test_data_that_is_not_there_is_left_to_the_data_gate(tmp_path: Path) -> None:
    summary, problems, _ = memory_answer(
        script_of("experiment=tiny_sft"), Surroundings((tmp_path,))
    )

    assert problems == ()
    assert "parameters" in summary


def test_a_model_that_is_too_large_by_its_name_is_refused_without_its_config() -> None:
    llama = ("experiment=llama3_8b_qlora_sft", "model.name_or_path=nvidia/Nemotron-4-340B-Base")

    found = problems_of(*llama)

    assert {problem.where for problem in found} == {"pod.gpu"}
    assert "by its name takes at least 135 GB" in found[0].what


@pytest.mark.parametrize(
    "name", ["me/theirs", "me/a-70B", "me/a-340B-A3B-160m", "mistralai/Mixtral-8x22B-v0.1"]
)
def test_a_name_that_says_little_or_may_fit_is_let_pass(name: str) -> None:
    assert problems_of("experiment=llama3_8b_qlora_sft", f"model.name_or_path={name}") == ()


def test_every_weight_trained_counts_what_the_optimizer_holds() -> None:
    full = ("experiment=qwen3_8b_dpo", "adapter=none")

    assert problems_of(*full, "model.name_or_path=me/a-20B") != ()
    assert problems_of(*full, "model.name_or_path=me/a-7B") == ()


def test_the_largest_llama_is_known() -> None:
    found = problems_of(
        "experiment=llama3_8b_qlora_sft", "model.name_or_path=meta-llama/Llama-3.1-405B-Instruct"
    )

    too_small = [problem for problem in found if problem.where == "pod.gpu"]
    assert all("at least 209 GB" in problem.what for problem in too_small)
    assert len(too_small) == 3
