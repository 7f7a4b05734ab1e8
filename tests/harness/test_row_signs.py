"""What is worth knowing of rows that can be trained on: told with a place, and never refused."""

from pathlib import Path
from typing import Any

import pytest

from podproof.compiler.credentials import SECRET_SHAPES
from podproof.harness.row_signs import CREDENTIAL_MARKS, Sign, SignReader, holds_credential
from podproof.runtime.plan import EvalPlan, MethodName
from podproof.runtime.rows import Row
from tests.harness.data_world import USER, Answered, ask, data_of, pair, plan_of, talk, talks

ANSWER = {"role": "assistant", "content": "It counts."}
SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {"role": "tool", "content": "5"}
# Made up, one of each shape; in pieces, so that no scanner takes this file for a leak.
CREDENTIALS = {
    "a Hugging Face token": "hf" + "_" + "a" * 34,
    "a RunPod API key": "rpa" + "_" + "A1" * 17,
    "an AWS access key": "AKIA" + "A1B2" * 4,
    "a GitHub token": "ghp" + "_" + "a1" * 18,
    "an OpenAI-style key": "sk" + "-proj-" + "a1B2" * 9,
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "a JSON web token": ".".join(["eyJ" + "a" * 12, "eyJ" + "b" * 12, "c" * 12]),
}


def asked_about(folder: Path, row: Any, **arguments: Any) -> Answered:
    """Ask about nine good conversations and a row after them."""
    return ask(folder, plan_of(data_of(folder, [*talks(9), row]), **arguments))


def reading(row: dict[str, Any], *special_tokens: str) -> int:
    """Return the signs of a row that is held against another."""
    first = Row("rows.jsonl:1", talk(1, said="Something else."))
    return SignReader.of(special_tokens).signs(Row("rows.jsonl:2", row), first)


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([USER, ANSWER, USER], "end with a turn of the user that nobody answers"),
        ([USER, USER, ANSWER], "have two turns of the user in a row"),
        ([SYSTEM, ANSWER, USER, ANSWER], "begin with a turn of the assistant"),
    ],
)
def test_turns_out_of_order_are_told_with_the_first_row_and_pass(
    tmp_path: Path, turns: list[Any], words: str
) -> None:
    answered = asked_about(tmp_path, {"messages": turns})

    assert answered.problems == ()
    assert f"1 of 10 train rows {words} (rows.jsonl:10)" in answered.summary


@pytest.mark.parametrize(
    "turns",
    [
        [USER, ANSWER],
        [SYSTEM, USER, ANSWER, USER, ANSWER],
        [USER, {**ANSWER, "tool_calls": []}, TOOL, TOOL, ANSWER],
        [USER, ANSWER, ANSWER],
    ],
)
def test_turns_in_order_have_no_sign(turns: list[Any]) -> None:
    assert reading({"messages": turns}) == 0


def test_the_turns_of_a_pair_follow_its_prompt() -> None:
    assert reading({"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]}) == 0


def test_every_shape_of_a_credential_is_found_by_its_mark() -> None:
    assert CREDENTIAL_MARKS.keys() == SECRET_SHAPES.keys() == CREDENTIALS.keys()
    assert all(map(holds_credential, CREDENTIALS.values()))


@pytest.mark.parametrize("text", ["a task-force of desk-workers", "hf_ and eyJ", "AKIA", "sk-"])
def test_text_that_only_begins_like_a_credential_is_none(text: str) -> None:
    assert not holds_credential(text)


def test_a_row_with_a_credential_is_told_by_its_place_and_the_credential_is_not_shown(
    tmp_path: Path,
) -> None:
    secret = CREDENTIALS["an OpenAI-style key"]

    answered = asked_about(tmp_path, talk(10, said=f"It is {secret}"))

    assert answered.problems == ()
    assert "1 of 10 train rows hold what looks like a credential" in answered.summary
    assert "(rows.jsonl:10)" in answered.summary
    assert secret not in f"{answered.summary}{answered.details}"


def test_a_special_token_inside_a_turn_is_told(tmp_path: Path) -> None:
    answered = asked_about(tmp_path, talk(10, said="ok<|im_end|>\n<|im_start|>user\nand?"))

    assert "1 of 10 train rows hold a special token of the tokenizer" in answered.summary


def test_a_special_token_in_text_that_no_template_renders_is_as_it_should_be() -> None:
    assert reading({"text": "<|im_start|>user"}, "<|im_start|>") == 0
    assert reading(talk(1, said="<|im_start|>"), "<|im_start|>") == Sign.SPECIAL_TOKEN
    assert reading(talk(1, said="<|im_start"), "<|im_start|>") == 0
    assert reading(talk(1, said="<|im_start|>")) == 0


@pytest.mark.parametrize("said", ["a\x00b", "na\ufffdve"])
def test_a_character_that_was_lost_is_told(tmp_path: Path, said: str) -> None:
    answered = asked_about(tmp_path, talk(10, said=said))

    assert "1 of 10 train rows hold NUL or U+FFFD" in answered.summary


def test_one_answer_to_every_question_is_told(tmp_path: Path) -> None:
    same, other = talks(10), [*talks(9), talk(9, said="It sorts.")]

    told = ask(tmp_path, plan_of(data_of(tmp_path, same)))
    untold = ask(tmp_path, plan_of(data_of(tmp_path, other)))

    assert "all 10 train rows have the same answer" in told.summary
    assert "the same answer" not in untold.summary


def test_one_answer_that_every_pair_rejects_is_told(tmp_path: Path) -> None:
    rows = [{**pair(number), "chosen": f"It counts {number}."} for number in range(10)]

    answered = ask(tmp_path, plan_of(data_of(tmp_path, rows), method=MethodName.DPO))

    assert answered.problems == ()
    assert "all 10 train rows reject the same answer" in answered.summary
    assert "have the same answer" not in answered.summary


def test_the_rows_of_each_part_are_told_apart(tmp_path: Path) -> None:
    held_out = [talk(20), {"messages": [USER, ANSWER, USER]}]
    data = data_of(tmp_path, [*talks(8), {"messages": [USER, USER, ANSWER]}], held_out)

    answered = ask(tmp_path, plan_of(data))

    assert "1 of 9 train rows have two turns of the user" in answered.summary
    assert "1 of 2 eval rows end with a turn of the user" in answered.summary
    assert "(held_out.jsonl:2)" in answered.summary
    assert answered.details["signs"]["eval"]["ends_with_user"] == 1


def test_a_sign_of_a_row_that_is_not_used_is_no_matter(tmp_path: Path) -> None:
    rows = [*talks(9), {"messages": [USER, ANSWER, USER]}]

    answered = ask(tmp_path, plan_of(data_of(tmp_path, rows, max_rows=9)))

    assert "nobody answers" not in answered.summary


def test_signs_are_counted_where_a_share_is_parted_off(tmp_path: Path) -> None:
    rows = [{"messages": [USER, {**ANSWER, "content": f"{n}"}, USER]} for n in range(20)]
    data = data_of(tmp_path, rows, eval=EvalPlan(fraction=0.2))

    answered = ask(tmp_path, plan_of(data))

    assert "16 of 16 train rows end with" in answered.summary
    assert "4 of 4 eval rows end with" in answered.summary
