"""Pairs that contradict each other: told with two lines, and refused when most of them do."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from podproof.harness.contradictions import contradictions
from podproof.runtime.plan import MethodName
from tests.harness.data_world import Answered, ask, data_of, pair, plan_of


def turned(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


def asked_about(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> Answered:
    return ask(folder, plan_of(data_of(folder, rows, **fields), method=MethodName.DPO))


@given(st.lists(st.integers(1, 6).flatmap(lambda value: st.sampled_from([value, -value]))))
def test_rows_are_counted_whose_opposite_is_there(rows: list[int]) -> None:
    found = contradictions([value + 10 for value in rows], [10 - value for value in rows])

    assert found.contradicted == sum(-value in rows for value in rows)
    if found.first is not None:
        earlier, later = found.first
        assert rows[earlier] == -rows[later]


def test_slices_count_as_the_whole_does() -> None:
    found = contradictions(range(600_000), range(300_000, 900_000))

    assert found.contradicted == 300_000
    assert found.first == (0, 300_000)


@pytest.mark.parametrize("method", [MethodName.DPO, MethodName.ORPO])
def test_pairs_of_which_most_contradict_each_other_are_refused_with_two_lines(
    tmp_path: Path, method: MethodName
) -> None:
    rows = [pair(number) for number in range(10)]
    data = data_of(tmp_path, [*rows, *map(turned, rows)])

    answered = ask(tmp_path, plan_of(data, method=method))

    (problem,) = answered.problems
    assert problem.where == "data.path"
    assert "20 of 20 train rows" in problem.what
    assert "(rows.jsonl:1 and rows.jsonl:11)" in problem.what
    assert "data.max_duplicate_fraction" in problem.way_out


def test_conversations_that_contradict_each_other_are_refused_too(tmp_path: Path) -> None:
    rows = [
        {
            name: [
                {"role": "user", "content": f"Question {number}"},
                {"role": "assistant", "content": name},
            ]
            for name in ("chosen", "rejected")
        }
        for number in range(10)
    ]

    answered = asked_about(tmp_path, [*rows, *map(turned, rows)])

    assert [problem.where for problem in answered.problems] == ["data.path"]


def test_a_few_people_who_disagree_are_told_and_pass(tmp_path: Path) -> None:
    rows = [pair(number) for number in range(40)]

    answered = asked_about(tmp_path, [*rows, turned(rows[3])])

    assert answered.problems == ()
    assert "2 of 41 train rows prefer what another rejects" in answered.summary
    assert "(rows.jsonl:4 and rows.jsonl:41)" in answered.summary
    assert answered.details["contradicted"] == 2


def test_contradictions_that_are_meant_pass(tmp_path: Path) -> None:
    rows = [pair(number) for number in range(10)]

    answered = asked_about(tmp_path, [*rows, *map(turned, rows)], max_duplicate_fraction=1.0)

    assert answered.problems == ()


def test_many_answers_to_one_prompt_in_an_order_are_no_contradiction(tmp_path: Path) -> None:
    answers = [f"Answer {number}" for number in range(6)]
    rows = [
        {"prompt": "Which?", "chosen": better, "rejected": worse}
        for number, better in enumerate(answers)
        for worse in answers[number + 1 :]
    ]

    answered = asked_about(tmp_path, rows)

    assert answered.problems == ()
    assert "rejects" not in answered.summary
