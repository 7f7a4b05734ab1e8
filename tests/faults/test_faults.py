"""Every planted fault is refused by its gate, with a message that names it; no good config is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from podproof.harness.warm import WarmTrainer
from tests.faults.corpus import Case, cases, judge

PLANTED, GOOD = cases("planted"), cases("good")
# Those are trained: each takes longer than a hundred of the others.
TRAINED = [case for case in PLANTED if case.level == "full"]


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmTrainer]:
    with WarmTrainer() as trainer:
        yield trainer


@pytest.mark.parametrize(
    "case",
    [case for case in PLANTED if not case.missed and case not in TRAINED],
    ids=lambda case: case.name,
)
def test_a_planted_fault_is_refused_by_its_gate(case: Case, tmp_path: Path) -> None:
    judged = judge(case, tmp_path)

    assert judged.is_caught, f"{case.planted}: {dict(judged.problems)}"


@pytest.mark.slow
@pytest.mark.parametrize("case", TRAINED, ids=lambda case: case.name)
def test_a_fault_that_only_training_shows_is_refused_by_its_gate(
    case: Case, tmp_path: Path, warm: WarmTrainer
) -> None:
    judged = judge(case, tmp_path, warm)

    assert judged.is_caught, f"{case.planted}: {dict(judged.problems)}"


def test_a_fault_on_the_list_of_the_missed_is_still_missed(tmp_path: Path) -> None:
    # So that a gate that learns to see one takes it off the list.
    seen = [
        case.name for case in PLANTED if case.missed and judge(case, tmp_path / case.name).is_caught
    ]

    assert seen == []


# Each fourth one here, all of them at all levels under make test-slow.
@pytest.mark.parametrize("case", GOOD[::4], ids=lambda case: case.name)
def test_no_static_gate_refuses_a_good_config(case: Case, tmp_path: Path) -> None:
    case = replace(case, overrides=(*case.overrides, "gates=static"))

    judged = judge(case, tmp_path)

    assert not judged.is_refused, dict(judged.problems)


@pytest.mark.slow
@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_no_gate_refuses_a_good_config(case: Case, tmp_path: Path) -> None:
    judged = judge(case, tmp_path)

    assert not judged.is_refused, dict(judged.problems)


@pytest.mark.slow
@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_no_gate_that_trains_refuses_a_good_config(
    case: Case, tmp_path: Path, warm: WarmTrainer
) -> None:
    judged = judge(replace(case, level="full"), tmp_path, warm)

    assert not judged.is_refused, dict(judged.problems)


def test_each_case_says_what_is_planted_and_where() -> None:
    assert all(case.planted and case.layer and case.gate and case.names for case in PLANTED)
    assert len({case.planted for case in PLANTED}) == len(PLANTED)
