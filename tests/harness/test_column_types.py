"""Values of two kinds in one place: refused where Arrow refuses, and nowhere else."""

from pathlib import Path
from typing import Any

import pytest

from tests.harness.data_world import Answered, ask, data_of, plan_of, talk, talks

CLASHING: list[tuple[Any, Any]] = [
    (1, "a"),
    (1, True),
    (True, 1),
    ("{}", {"a": 1}),
    ([1], {"a": 1}),
    ([1], "a"),
    ([1, "a"], [1]),
]
FITTING: list[tuple[Any, Any]] = [
    (1, 2.5),
    (None, "a"),
    ({}, {"a": 1}),
    ([], [1]),
    ("a", "b"),
    ({"a": 1}, {"b": "c"}),
]


def call(number: int, value: Any) -> dict[str, Any]:
    """Return a conversation in which a tool is called with a value."""
    called = {"type": "function", "function": {"name": "f", "arguments": {"x": value}}}
    asked, said = talk(number)["messages"]
    turn = {"role": "assistant", "content": "", "tool_calls": [called]}
    return {"messages": [asked, turn, {"role": "tool", "content": "5"}, said]}


def asked_about(folder: Path, rows: list[Any], **fields: Any) -> Answered:
    return ask(folder, plan_of(data_of(folder, rows, **fields)))


@pytest.mark.parametrize(("one", "other"), CLASHING)
def test_arguments_of_two_kinds_are_refused_with_both_lines(
    tmp_path: Path, one: Any, other: Any
) -> None:
    answered = asked_about(tmp_path, [*talks(5), call(5, one), call(6, other)])

    (problem,) = answered.problems
    assert problem.where.startswith("rows.jsonl:")
    assert "messages[].tool_calls[].function.arguments.x" in problem.what
    assert "JSON text" in problem.way_out


@pytest.mark.parametrize(("one", "other"), FITTING)
def test_arguments_that_go_together_pass(tmp_path: Path, one: Any, other: Any) -> None:
    answered = asked_about(tmp_path, [*talks(5), call(5, one), call(6, other)])

    assert answered.problems == ()


def test_any_key_of_a_turn_is_looked_at(tmp_path: Path) -> None:
    rows = talks(5)
    rows[1]["messages"][1]["weight"] = 1
    rows[3]["messages"][1]["weight"] = "1"

    answered = asked_about(tmp_path, rows)

    assert "messages[].weight is text here and a number in rows.jsonl:2" in answered.text


def test_tools_as_text_and_as_a_list_are_refused(tmp_path: Path) -> None:
    rows = [{**talk(1), "tools": "[]"}, {**talk(2), "tools": [{"type": "function"}]}]

    answered = asked_about(tmp_path, rows)

    assert "tools is a list here and text in rows.jsonl:1" in answered.text


def test_a_clash_with_a_row_that_is_not_used_is_none(tmp_path: Path) -> None:
    answered = asked_about(tmp_path, [call(1, 1), call(2, 2), call(3, "a")], max_rows=2)

    assert answered.problems == ()


def test_rows_to_evaluate_on_are_a_table_of_their_own(tmp_path: Path) -> None:
    train, held_out = [call(n, 1) for n in range(4)], [call(n, "a") for n in range(5, 9)]

    apart = ask(tmp_path, plan_of(data_of(tmp_path, train, held_out)))
    mixed = ask(tmp_path, plan_of(data_of(tmp_path, train, [*held_out, call(9, 1)])))

    assert apart.problems == ()
    assert mixed.problems[0].where == "held_out.jsonl:5"


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), [*CLASHING, *FITTING])
def test_arrow_says_the_same(one: Any, other: Any) -> None:
    datasets = pytest.importorskip("datasets")
    from pyarrow import ArrowException

    def loads() -> bool:
        try:
            datasets.Dataset.from_list([call(1, one), call(2, other)])
        except ArrowException:
            return False
        return True

    assert loads() == ((one, other) in FITTING)
