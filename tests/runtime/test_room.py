"""Room for an answer: what stands before it must not fill max_length."""

from typing import Any

import pytest

from podproof.runtime.plan import MethodName
from podproof.runtime.room import prompt_text, room_checked, room_limit
from podproof.runtime.rows import BadRow, Row

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
OTHER = {"role": "assistant", "content": "b"}


def render(messages: Any) -> str:
    return "".join(f"<{item['role']}>{item['content']}" for item in messages) + "<assistant>"


@pytest.mark.parametrize(
    ("columns", "prompt"),
    [
        ({"messages": [USER, ASSISTANT]}, ""),
        ({"prompt": "p", "completion": "c"}, "p"),
        ({"prompt": [USER], "completion": [ASSISTANT]}, "<user>q<assistant>"),
        ({"chosen": [USER, ASSISTANT], "rejected": [USER, OTHER]}, "<user>q<assistant>"),
    ],
)
def test_the_prompt_of_a_row_is_all_that_stands_before_the_answer(
    columns: dict[str, Any], prompt: str
) -> None:
    assert prompt_text(columns, render) == prompt


@pytest.mark.parametrize(
    ("tokens", "bos", "kind"),
    [([5] * 9, None, Row), ([5] * 10, None, BadRow), ([5] * 9, 1, BadRow), ([1] * 9, 1, Row)],
)
def test_a_prompt_must_leave_room_and_the_opening_token_counts(
    tokens: list[int], bos: int | None, kind: type
) -> None:
    row = Row("f:1", {"prompt": "p", "completion": "c"})

    assert isinstance(room_checked(row, tokens, bos, 10), kind)


def test_a_row_without_a_prompt_of_its_own_needs_no_room() -> None:
    row = Row("f:1", {"text": "t"})

    assert room_checked(row, [], 1, 1) is row


def test_orpo_cuts_where_nothing_is_said_and_the_others_do_not() -> None:
    assert room_limit(MethodName.ORPO, None, None) == 512
    assert room_limit(MethodName.SFT, None, None) is None
    assert room_limit(MethodName.DPO, 64, "keep_start") == 64
    assert room_limit(MethodName.DPO, 64, "keep_end") is None
