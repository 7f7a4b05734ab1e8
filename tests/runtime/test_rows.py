"""Rows: what each method can train on, and what is wrong with the others."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from podproof.runtime.errors import BadData, Problem
from podproof.runtime.plan import MethodName, RowFormat
from podproof.runtime.rows import (
    BadRow,
    Row,
    Rows,
    checked_rows,
    cut_rows,
    detect_format,
    is_conversation,
    part_rows,
    row_notices,
    row_texts,
)

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
OTHER = {"role": "assistant", "content": "b"}
numbered = st.integers(2, 60).map(
    lambda count: tuple(Row(f"f:{number}", {"text": str(number)}) for number in range(count))
)


def checked(row_format: RowFormat, *columns: dict[str, Any]) -> list[Row | BadRow]:
    rows = [Row(f"f:{number}", value) for number, value in enumerate(columns, start=1)]
    is_preference = row_format is RowFormat.PREFERENCE
    return list(checked_rows(rows, row_format, MethodName.DPO if is_preference else MethodName.SFT))


def complaints(row_format: RowFormat, *columns: dict[str, Any]) -> list[str]:
    found = checked(row_format, *columns)
    return [item.what for row in found if isinstance(row, BadRow) for item in row.problems]


@pytest.mark.parametrize(
    ("row_format", "columns"),
    [
        (RowFormat.TEXT, {"text": "t"}),
        (RowFormat.MESSAGES, {"messages": [USER, ASSISTANT]}),
        (RowFormat.PROMPT_COMPLETION, {"prompt": "q", "completion": "a"}),
        (RowFormat.PROMPT_COMPLETION, {"prompt": [USER], "completion": [ASSISTANT]}),
        (RowFormat.PREFERENCE, {"prompt": "q", "chosen": "a", "rejected": "b"}),
        (RowFormat.PREFERENCE, {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [OTHER]}),
        (RowFormat.PREFERENCE, {"chosen": [USER, ASSISTANT], "rejected": [USER, OTHER]}),
        (
            RowFormat.PREFERENCE,
            {"prompt": "q", "chosen": [USER, ASSISTANT], "rejected": [USER, OTHER]},
        ),
        (
            RowFormat.MESSAGES,
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]},
        ),
    ],
)
def test_a_row_of_a_known_shape_is_fine(row_format: RowFormat, columns: dict[str, Any]) -> None:
    assert complaints(row_format, columns) == []


@pytest.mark.parametrize(
    ("row_format", "columns", "words"),
    [
        (RowFormat.TEXT, {"text": None}, "text is missing"),
        (
            RowFormat.TEXT,
            {"text": "half \ud83d"},
            "text holds half a surrogate pair, which no tokenizer takes",
        ),
        (RowFormat.TEXT, {"text": " \n"}, "text is empty"),
        (RowFormat.TEXT, {"text": 7}, "text must be text, got int"),
        (RowFormat.TEXT, {"text": ["t"]}, "text must be text, got list"),
        (RowFormat.MESSAGES, {"messages": "q"}, "messages must be a list of messages, got str"),
        (RowFormat.MESSAGES, {"messages": []}, "messages has no assistant turn"),
        (RowFormat.MESSAGES, {"messages": [USER]}, "messages has no assistant turn"),
        (RowFormat.MESSAGES, {"messages": ["q"]}, "messages[0] must be an object, got str"),
        (
            RowFormat.MESSAGES,
            {"messages": [USER, {"role": "assistant", "content": " "}]},
            "messages[1] has no content",
        ),
        (
            RowFormat.MESSAGES,
            {"messages": [{"role": "user", "content": [{"type": "image"}]}, ASSISTANT]},
            "messages[0] has a content that is no text but list",
        ),
        (
            RowFormat.MESSAGES,
            {"messages": [USER, {"role": "assistant", "content": "\udc00"}]},
            "messages[1] has a content that holds half a surrogate pair, which no tokenizer takes",
        ),
        (
            RowFormat.PROMPT_COMPLETION,
            {"prompt": "q", "completion": None},
            "completion is missing",
        ),
        (
            RowFormat.PROMPT_COMPLETION,
            {"prompt": [USER], "completion": "a"},
            "prompt and completion must be both text or both messages",
        ),
        (
            RowFormat.PROMPT_COMPLETION,
            {"prompt": [ASSISTANT], "completion": [ASSISTANT]},
            "prompt must end with a turn of the user",
        ),
        (RowFormat.PREFERENCE, {"chosen": "a", "rejected": "b"}, "prompt is missing"),
        (RowFormat.PREFERENCE, {"prompt": "q", "chosen": "a", "rejected": ""}, "rejected is empty"),
        (
            RowFormat.PREFERENCE,
            {"prompt": "q", "chosen": "a", "rejected": "a"},
            "chosen and rejected are the same, so there is nothing to prefer",
        ),
        (
            RowFormat.PREFERENCE,
            {"prompt": "q", "chosen": "a", "rejected": [OTHER]},
            "chosen and rejected must be both text or both messages",
        ),
        (
            RowFormat.PREFERENCE,
            {"prompt": [USER], "chosen": "a", "rejected": "b"},
            "prompt is messages, but chosen and rejected are text",
        ),
        (
            RowFormat.PREFERENCE,
            {"chosen": [ASSISTANT], "rejected": [OTHER]},
            "chosen and rejected do not begin alike",
        ),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_named(
    row_format: RowFormat, columns: dict[str, Any], words: str
) -> None:
    assert complaints(row_format, columns) == [words]


def test_an_unknown_role_is_named_with_the_known_ones() -> None:
    bot = {"role": "bot", "content": "a"}

    found = complaints(RowFormat.MESSAGES, {"messages": [USER, bot]})

    assert found == [
        "messages[1] has the role 'bot', not one of assistant, developer, system, tool, user"
    ]


def test_a_row_of_another_shape_than_the_first_is_named() -> None:
    text = {"prompt": "q", "chosen": "a", "rejected": "b"}
    turns = {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [OTHER]}

    found = complaints(RowFormat.PREFERENCE, text, turns)

    shape, first = "prompt: {0}, chosen: {0}, rejected: {0}".format, "the first row has"
    assert found == [f"has {shape('messages')}; {first} {shape('text')}"]


def test_auto_prefers_messages() -> None:
    found = detect_format({"text", "messages", "prompt"}, RowFormat.AUTO, MethodName.SFT)

    assert found is RowFormat.MESSAGES


def test_a_wanted_format_is_taken_where_auto_would_take_another() -> None:
    found = detect_format({"text", "messages"}, RowFormat.TEXT, MethodName.SFT)

    assert found is RowFormat.TEXT


def test_no_format_fits_columns_of_another_method() -> None:
    assert detect_format({"messages"}, RowFormat.AUTO, MethodName.ORPO) is None


def test_a_text_prompt_beside_conversations_is_dropped() -> None:
    columns = {"prompt": "q", "chosen": [USER, ASSISTANT], "rejected": [USER, OTHER]}

    (kept,) = checked(RowFormat.PREFERENCE, columns)

    assert isinstance(kept, Row)
    assert list(kept.columns) == ["chosen", "rejected"]


def test_tools_stay_with_the_conversation() -> None:
    columns = {"messages": [USER, ASSISTANT], "tools": "[]", "id": 3}

    (kept,) = checked(RowFormat.MESSAGES, columns)

    assert isinstance(kept, Row)
    assert list(kept.columns) == ["messages", "tools"]


def test_the_shape_of_the_others_is_that_of_the_first_good_row() -> None:
    empty, turns = {"prompt": [], "completion": [ASSISTANT]}, [USER]

    found = checked(
        RowFormat.PROMPT_COMPLETION,
        empty,
        {"prompt": "q", "completion": "a"},
        {"prompt": turns, "completion": [ASSISTANT]},
        {"prompt": "r", "completion": "a"},
    )

    assert [isinstance(row, Row) for row in found] == [False, True, False, True]


def test_a_row_that_was_unreadable_stays_in_its_place() -> None:
    broken = BadRow((Problem("f:1", "not JSON"),))

    found = list(checked_rows([broken, Row("f:2", {"text": "t"})], RowFormat.AUTO, MethodName.SFT))

    assert found == [broken, Row("f:2", {"text": "t"})]


def test_columns_that_serve_no_format_are_refused_at_the_first_row() -> None:
    rows = [Row("f:1", {"question": "q"})]

    with pytest.raises(BadData, match="f:1: the columns are question; dpo needs"):
        list(checked_rows(rows, RowFormat.AUTO, MethodName.DPO))


@given(numbered, st.floats(0.01, 0.99), st.none() | st.integers(1, 9), st.none() | st.integers())
def test_parting_loses_no_row_and_leaves_both_parts_some(
    rows: tuple[Row, ...], fraction: float, most: int | None, seed: int | None
) -> None:
    train, evaluation = part_rows(rows, fraction, most=most, seed=seed)

    assert sorted([*train, *evaluation], key=rows.index) == list(rows)
    assert train
    assert 1 <= len(evaluation) <= (most or len(rows))


@given(numbered, st.integers())
def test_a_seeded_cut_of_everything_is_a_permutation(rows: tuple[Row, ...], seed: int) -> None:
    cut = cut_rows(rows, None, seed)

    assert sorted(cut, key=rows.index) == list(rows)


def test_without_a_seed_the_first_rows_are_kept() -> None:
    rows = tuple(Row(f"f:{number}", {"text": "t"}) for number in range(5))

    assert cut_rows(rows, 2, None) == rows[:2]


def test_repeated_and_leaked_rows_are_noticed() -> None:
    one, two = Row("f:1", {"text": "one"}), Row("f:2", {"text": "two"})
    rows = Rows((one, one, two), (one,), RowFormat.TEXT)

    assert row_notices(rows) == (
        "1 of 3 training rows repeat an earlier one",
        "1 of 1 evaluation rows are training rows too",
    )


def test_dropped_rows_are_noticed_first() -> None:
    rows = Rows((Row("f:1", {"text": "one"}),), (), RowFormat.TEXT, ("2 rows are dropped",))

    assert row_notices(rows) == ("2 rows are dropped",)


def test_distinct_rows_need_no_notice() -> None:
    rows = Rows((Row("f:1", {"text": "one"}),), (Row("f:2", {"text": "two"}),), RowFormat.TEXT)

    assert row_notices(rows) == ()


def test_the_texts_of_a_row_are_its_columns_and_its_turns() -> None:
    row = Row("f:1", {"prompt": "p", "chosen": [USER, {"role": "assistant", "content": None}]})

    assert row_texts(row) == ("p", "q")
    assert is_conversation(row)
