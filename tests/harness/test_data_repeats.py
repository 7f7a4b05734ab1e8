"""Rows that repeat and rows that leak: told, and refused beyond a share."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from podproof.harness.repeats import Repeats, repeat_notices, repeat_problems, repeats
from podproof.runtime.plan import DataPlan, EvalPlan, MethodName
from tests.harness.data_world import ask, data_of, pair, plan_of, talk, talks


def refusals(train: int, repeated: int, evaluation: int, leaked: int, **fields: float) -> list[str]:
    found = Repeats(train, repeated, evaluation, leaked)
    return [item.where for item in repeat_problems(found, DataPlan(**fields))]  # type: ignore[arg-type]  # the shares are floats


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_repeats_and_leaks_are_counted(train: list[int], evaluation: list[int]) -> None:
    found = repeats(train, evaluation)

    counts = Counter(train)
    assert found.repeated == sum(count - 1 for count in counts.values())
    assert found.leaked == sum(value in counts for value in evaluation)


def test_slices_count_as_the_whole_does() -> None:
    train = [*range(300_000), *range(70_000)]

    found = repeats(train, [*range(250_000, 500_000)])

    assert (found.repeated, found.leaked) == (70_000, 50_000)


@pytest.mark.parametrize(("leaked", "is_refused"), [(1, False), (2, False), (3, True), (20, True)])
def test_leaks_beyond_the_share_are_refused(leaked: int, *, is_refused: bool) -> None:
    assert refusals(100, 0, 20, leaked) == (["data.eval"] if is_refused else [])


def test_a_single_row_is_no_leak() -> None:
    assert refusals(100, 0, 1, 1) == []


def test_a_wider_share_lets_leaks_pass() -> None:
    assert refusals(100, 0, 20, 20, max_leaked_fraction=1.0) == []


@pytest.mark.parametrize(("repeated", "is_refused"), [(9, False), (10, True)])
def test_repeats_beyond_the_share_are_refused(repeated: int, *, is_refused: bool) -> None:
    assert refusals(12, repeated, 0, 0) == (["data.path"] if is_refused else [])


def test_half_of_the_rows_may_repeat() -> None:
    assert refusals(200, 100, 0, 0) == []
    assert refusals(200, 101, 0, 0) == ["data.path"]
    assert refusals(200, 101, 0, 0, max_duplicate_fraction=0.6) == []


def test_nothing_is_said_of_what_is_not_there() -> None:
    assert list(repeat_notices(Repeats(10, 0, 5, 0))) == []


def test_an_eval_file_that_is_the_training_file_is_refused(tmp_path: Path) -> None:
    answered = ask(tmp_path, plan_of(data_of(tmp_path, talks(20), talks(20))))

    (problem,) = answered.problems
    assert problem.where == "data.eval"
    assert "20 of 20 evaluation rows are training rows too" in problem.what
    assert "one of the two files" in problem.way_out


def test_a_row_leaks_whatever_the_order_of_its_keys(tmp_path: Path) -> None:
    swapped = [
        {"id": number, "messages": [dict(reversed(turn.items())) for turn in row["messages"]]}
        for number, row in enumerate(talks(9))
    ]

    answered = ask(tmp_path, plan_of(data_of(tmp_path, talks(9), swapped)))

    assert "9 of 9 evaluation rows are training rows too" in answered.text


def test_the_same_prompt_with_other_answers_is_no_leak(tmp_path: Path) -> None:
    said = [talk(number, said="It sorts.") for number in range(9)]

    assert ask(tmp_path, plan_of(data_of(tmp_path, talks(9), said))).problems == ()


def test_rows_that_repeat_leak_into_a_share_that_is_parted_off(tmp_path: Path) -> None:
    data = data_of(tmp_path, talks(5) * 4, eval=EvalPlan(fraction=0.2))

    answered = ask(tmp_path, plan_of(data))

    assert {problem.where for problem in answered.problems} == {"data.path", "data.eval"}


def test_a_few_repeats_are_told_and_pass(tmp_path: Path) -> None:
    data = data_of(tmp_path, [*talks(40), *talks(3)])

    answered = ask(tmp_path, plan_of(data))

    assert answered.problems == ()
    assert "3 of 43 training rows repeat an earlier one" in answered.summary
    assert answered.details["repeats"]["repeated"] == 3


def test_pairs_with_one_prompt_are_no_repeats(tmp_path: Path) -> None:
    rows = [{**pair(1), "rejected": f"It sorts {number}."} for number in range(20)]

    answered = ask(tmp_path, plan_of(data_of(tmp_path, rows), method=MethodName.DPO))

    assert answered.problems == ()
