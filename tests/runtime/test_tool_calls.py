"""Calls of tools: a row is trained on as it is, whatever the keys of the other rows are."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.test_trainers import built_from, message_row, plan_for, turn

from podproof.runtime.plan import MethodName, RowFormat
from podproof.runtime.rows import Row, Rows


def calling(name: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return [{"role": "assistant", "content": None, "tool_calls": [call]}]


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("weather", {"city": "Paris"}),
    ("add", {"x": 1, "y": [2.5, "two"]}),
    ("add", {"x": "one", "y": {"z": None}}),
]
# Writes what it is given as it is: a null that a row does not have would show.
PLAIN_TEMPLATE = (
    "{{ tools | tojson if tools else '' }}{% for message in messages %}"
    "{{ message.role }}: {{ message.content or message.tool_calls | tojson }};{% endfor %}"
)


@pytest.mark.parametrize("method", list(MethodName))
def test_calls_of_different_tools_are_trained_on_as_the_rows_have_them(
    method: MethodName, tmp_path: Path
) -> None:
    plan = plan_for(method, max_length=250)
    plan = dataclasses.replace(
        plan, model=dataclasses.replace(plan.model, chat_template=PLAIN_TEMPLATE)
    )
    asked, refused = [turn("user", "do")], [turn("assistant", "no")]
    answers = [calling(*call) for call in CALLS]
    if method is MethodName.SFT:
        columns = [{"messages": [*asked, *answer]} for answer in answers]
    else:
        columns = [{"prompt": asked, "chosen": one, "rejected": refused} for one in answers]
    rows = tuple(Row(f"rows:{number}", each) for number, each in enumerate(columns))

    trainer = built_from(plan, Rows(rows, rows, RowFormat.AUTO), tmp_path).trainer

    names = ("input_ids", "chosen_ids", "chosen_input_ids")
    for row, answer in zip(trainer.train_dataset, answers, strict=True):
        tokens = next(row[name] for name in names if name in row)
        text = trainer.processing_class.decode(tokens)
        assert f"assistant: {json.dumps(answer[0]['tool_calls'])};" in text


def test_tools_that_the_first_row_does_not_have_are_shown_to_those_that_have_them(
    tmp_path: Path,
) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name, _ in CALLS[:2]]
    model = dataclasses.replace(plan_for(MethodName.SFT).model, chat_template=PLAIN_TEMPLATE)
    plan = dataclasses.replace(plan_for(MethodName.SFT, max_length=250), model=model)
    bare = message_row(1)
    rows = (bare, Row("rows:2", {**bare.columns, "tools": tools}))

    trainer = built_from(plan, Rows(rows, rows, RowFormat.MESSAGES), tmp_path).trainer

    texts = [trainer.processing_class.decode(row["input_ids"]) for row in trainer.train_dataset]
    assert texts[1] == json.dumps(tools) + texts[0]
