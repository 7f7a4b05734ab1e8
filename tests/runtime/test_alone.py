"""One process, and what it settles with the others: nothing."""

import os
from pathlib import Path

import pytest
from tests.runtime.test_plan import PLAN

from podproof.runtime.alone import Alone
from podproof.runtime.errors import BadPlan


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Alone:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return Alone(PLAN, tmp_path)


def test_it_is_the_first_trains_here_and_decides_by_itself(alone: Alone) -> None:
    assert alone.is_first
    assert alone.start_all() is None
    assert alone.decide(lambda: "checkpoint-4") == "checkpoint-4"
    assert alone.ended(3) == 3


def test_of_several_gpus_it_takes_the_first(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")

    alone.begin()

    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_another_gpu_can_be_named(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")

    alone.begin()

    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_what_it_hears_is_what_it_obeys(alone: Alone) -> None:
    alone.heard.reason = "SIGTERM"

    assert alone.stop.reason == "SIGTERM"


def test_several_processes_of_a_plan_for_one_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(BadPlan, match="several processes of a plan for one"):
        Alone(PLAN, tmp_path)


def test_a_node_of_a_cluster_may_run_a_plan_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "16")

    assert Alone(PLAN, tmp_path).start_all() is None
