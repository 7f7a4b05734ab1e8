"""What a log says: its kind by its keys, and a value only where there is a usable one."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from podproof.runtime.readings import LogKind, Measures, Reading, read_log, usable_loss

STREAMS = Path(__file__).parents[1] / "streams"


def recorded(name: str) -> list[dict[str, Any]]:
    """Return the log_history that a real trainer ended with."""
    with gzip.open(STREAMS / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        footer = json.loads(list(lines)[-1])
    history: list[dict[str, Any]] = footer["log_history"]
    return history


def readings(name: str, kind: LogKind) -> list[Reading]:
    return [reading for reading in map(read_log, recorded(name)) if reading.kind is kind]


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ({"loss": 1.0, "grad_norm": 1.0}, LogKind.TRAIN),
        ({"loss": 1.0, "train_runtime": 1.0}, LogKind.TRAIN),
        ({"train_loss": 1.0, "train_runtime": 1.0, "mean_token_accuracy": 0.5}, LogKind.SUMMARY),
        ({"train_loss": 1.0, "loss": 1.0}, LogKind.SUMMARY),
        ({"eval_loss": 1.0}, LogKind.EVALUATION),
        ({"eval_runtime": 1.0}, LogKind.EVALUATION),
        ({"eval_faq_loss": 1.0, "eval_faq_runtime": 1.0}, LogKind.EVALUATION),
        ({"eval_bleu": 1.0}, LogKind.OTHER),
        ({"eval_checkpoint_score": 1.0}, LogKind.OTHER),
        ({"epoch": 1.0}, LogKind.OTHER),
        ({}, LogKind.OTHER),
    ],
)
def test_the_keys_of_a_log_tell_its_kind(entry: dict[str, Any], kind: LogKind) -> None:
    assert read_log(entry).kind is kind


def test_a_log_of_a_preference_method_is_read_whole() -> None:
    entry = {
        "eval_loss": 0.6,
        "eval_runtime": 1.0,
        "eval_rewards/margins": 0.25,
        "eval_rewards/accuracies": 0.75,
        "eval_mean_token_accuracy": 0.1,
        "eval_nll_loss": 9.0,
        "step": 20,
    }

    assert read_log(entry) == Reading(LogKind.EVALUATION, 20, 0.6, Measures(0.25, 0.75))


def test_a_train_log_has_the_same_measures_under_their_own_names() -> None:
    entry = {"loss": 0.6, "rewards/margins": 0.25, "rewards/accuracies": 1.0, "step": 5}

    assert read_log(entry) == Reading(LogKind.TRAIN, 5, 0.6, Measures(0.25, 1.0))


def test_sft_has_the_accuracy_of_its_tokens_and_no_margin() -> None:
    entry = {"eval_loss": 2.0, "eval_mean_token_accuracy": 0.5}

    assert read_log(entry).measures == Measures(None, 0.5)


def test_which_accuracy_counts_is_told_by_the_keys_and_not_by_the_values() -> None:
    entry = {"eval_loss": 1.0, "eval_rewards/accuracies": math.nan, "eval_mean_token_accuracy": 0.5}

    assert read_log(entry).measures.accuracy is None


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, "0.5", True, None, 10**400])
def test_what_is_no_share_is_no_accuracy(value: object) -> None:
    assert read_log({"eval_loss": 1.0, "eval_rewards/accuracies": value}).measures.accuracy is None


@pytest.mark.parametrize("value", [math.nan, math.inf, "0.5", True, None, 10**400])
def test_what_is_no_finite_number_is_no_loss_and_no_margin(value: object) -> None:
    reading = read_log({"eval_loss": value, "eval_rewards/margins": value})

    assert (reading.loss, reading.measures.margin) == (None, None)


def test_one_of_several_eval_sets_is_named_and_has_the_loss_of_its_name() -> None:
    entry = {
        "eval_hard_loss": 2.5,
        "eval_hard_runtime": 0.1,
        "eval_hard_samples_per_second": 9.0,
        "eval_rewards/margins": 0.5,
        "eval_aux_loss": 0.1,
        "step": 4,
    }

    assert read_log(entry) == Reading(
        LogKind.EVALUATION, 4, 2.5, Measures(margin=0.5), eval_set="hard"
    )


def test_an_evaluation_that_lost_its_loss_is_still_one() -> None:
    assert read_log({"eval_hard_runtime": 0.1}) == Reading(
        LogKind.EVALUATION, 0, None, Measures(), eval_set="hard"
    )


@pytest.mark.parametrize("step", [None, "7", 7.5])
def test_what_is_no_whole_number_is_no_step(step: object) -> None:
    assert read_log({"eval_loss": 1.0, "step": step}).step == 0


# What real trainers logged.


@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_a_real_preference_run_logs_margin_and_accuracy_with_every_loss(method: str) -> None:
    read = [*readings(method, LogKind.TRAIN), *readings(method, LogKind.EVALUATION)]

    assert len(read) > 4
    assert all(usable_loss(each.loss) is not None for each in read)
    assert all(each.measures.margin is not None for each in read)
    assert all(each.measures.accuracy is not None for each in read)


def test_a_real_sft_run_logs_token_accuracy_and_no_margin() -> None:
    read = readings("sft", LogKind.EVALUATION)

    assert len(read) > 1
    assert all(each.measures.margin is None for each in read)
    assert all(each.measures.accuracy is not None for each in read)


def test_a_real_run_with_two_eval_sets_logs_one_evaluation_for_each() -> None:
    read = readings("sft_two_evals", LogKind.EVALUATION)

    assert len({each.eval_set for each in read}) == 2
    assert all(each.eval_set and each.loss is not None for each in read)


@pytest.mark.parametrize("name", ["sft", "dpo", "orpo", "sft_two_evals"])
def test_a_real_run_ends_with_one_summary_and_logs_nothing_unknown(name: str) -> None:
    kinds = [reading.kind for reading in map(read_log, recorded(name))]

    assert kinds[-1] is LogKind.SUMMARY
    assert kinds.count(LogKind.SUMMARY) == 1
    assert LogKind.OTHER not in kinds


def test_the_two_ranks_of_a_real_run_are_read_alike() -> None:
    ranks = [[*map(read_log, recorded(f"sft_ddp2.rank{rank}"))] for rank in (0, 1)]

    assert ranks[0] == ranks[1]
