"""Sample prompts: which rows are asked, what of them, and where nobody is asked."""

from types import SimpleNamespace
from typing import Any

import pytest
from tests.runtime.test_callback import Recorder
from tests.runtime.test_trainers import ROWS, plan_for, turn

from podproof.runtime.events import EventKind
from podproof.runtime.plan import MethodName
from podproof.runtime.predictions import attach_predictions, sample_prompts
from podproof.runtime.rows import Row, Rows

QUESTION, ANSWER = turn("user", "What is 2?"), turn("assistant", "It is 2.")

# Which prompts.


@pytest.mark.parametrize(
    ("columns", "prompt", "expected"),
    [
        ({"messages": [QUESTION, ANSWER]}, [QUESTION], "It is 2."),
        (
            {"messages": [QUESTION, ANSWER, QUESTION, turn("assistant", "Still 2.")]},
            [QUESTION, ANSWER, QUESTION],
            "Still 2.",
        ),
        ({"prompt": "2 is", "completion": " two"}, "2 is", " two"),
        ({"prompt": [QUESTION], "completion": [ANSWER]}, [QUESTION], "It is 2."),
        ({"text": "one two three four"}, "one two three", " four"),
        ({"text": "unbroken"}, "unbr", "oken"),
        ({"prompt": "2 is", "chosen": " two", "rejected": " ten"}, "2 is", " two"),
        (
            {"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [turn("assistant", "No.")]},
            [QUESTION],
            "It is 2.",
        ),
        (
            {"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, turn("assistant", "No.")]},
            [QUESTION],
            "It is 2.",
        ),
        ({"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, ANSWER]}, [QUESTION], "It is 2."),
    ],
)
def test_a_row_of_each_format_is_parted_into_what_it_asks_and_what_it_answers(
    columns: dict[str, Any], prompt: Any, expected: str
) -> None:
    (sample,) = sample_prompts([Row("rows:4", columns)], 3)

    assert (sample.where, sample.prompt, sample.expected) == ("rows:4", prompt, expected)


def test_the_prompts_are_spread_evenly_and_the_same_every_time() -> None:
    rows = [Row(f"rows:{number}", {"text": f"a {number}"}) for number in range(10)]

    first, again = sample_prompts(rows, 4), sample_prompts(rows, 4)

    assert first == again
    assert [sample.where for sample in first] == ["rows:0", "rows:2", "rows:5", "rows:7"]


# Where it is not attached.


def trainer_like(**changes: Any) -> Any:
    there: dict[str, Any] = {
        "accelerator": SimpleNamespace(distributed_type=SimpleNamespace(value="MULTI_GPU")),
        "is_fsdp_enabled": False,
        "is_deepspeed_enabled": False,
        "is_world_process_zero": lambda: True,
        "attached": [],
    }
    there |= changes
    return SimpleNamespace(**there, add_callback=there["attached"].append)


def test_under_ddp_it_is_attached() -> None:
    trainer, recorder = trainer_like(), Recorder()

    attach_predictions(trainer, plan_for(MethodName.SFT), ROWS[MethodName.SFT], recorder)

    assert (len(trainer.attached), recorder.told) == (1, [])


@pytest.mark.parametrize(
    "changes",
    [
        {"is_fsdp_enabled": True},
        {"is_deepspeed_enabled": True},
        {"accelerator": SimpleNamespace(distributed_type=SimpleNamespace(value="MEGATRON_LM"))},
    ],
)
def test_where_weights_are_spread_over_processes_nothing_is_attached(
    changes: dict[str, Any],
) -> None:
    trainer, recorder = trainer_like(**changes), Recorder()

    attach_predictions(trainer, plan_for(MethodName.SFT), ROWS[MethodName.SFT], recorder)

    assert trainer.attached == []
    assert "spread over several processes" in recorder.bodies(EventKind.NOTICE)[0]["what"]


def test_without_eval_rows_nothing_is_attached() -> None:
    trainer, recorder = trainer_like(), Recorder()
    rows = Rows(ROWS[MethodName.SFT].train, (), ROWS[MethodName.SFT].row_format)

    attach_predictions(trainer, plan_for(MethodName.SFT), rows, recorder)

    assert trainer.attached == []
    assert "no evaluation rows" in recorder.bodies(EventKind.NOTICE)[0]["what"]


def test_a_rank_that_is_not_the_first_says_nothing_of_it() -> None:
    trainer, recorder = trainer_like(is_fsdp_enabled=True, is_world_process_zero=bool), Recorder()

    attach_predictions(trainer, plan_for(MethodName.SFT), ROWS[MethodName.SFT], recorder)

    assert recorder.told == []
