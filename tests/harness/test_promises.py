"""What a finished training must have left: each promise is kept, and is missed when it is not."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from podproof.harness.promises import best_step, broken_promises
from podproof.harness.trained import Trained, read_trained
from podproof.runtime.plan import Objective, Plan, PredictionsPlan
from tests.harness.conftest import SoundOutput

Wrong = Callable[[Path], object]


@pytest.fixture
def output(sound_output: SoundOutput) -> Iterator[Path]:
    """Put what was trained back where its events say it is."""
    shutil.copytree(sound_output.kept, sound_output.place)
    yield sound_output.place
    shutil.rmtree(sound_output.place.parent)


@pytest.fixture
def plan(sound_output: SoundOutput) -> Plan:
    return sound_output.plan


def broken(trained: Trained) -> list[str]:
    return [str(problem) for problem in broken_promises(trained)]


def events(output: Path, change: Callable[[list[dict[str, object]]], object]) -> None:
    path = output / "events.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def every(kind: str, **body: object) -> Wrong:
    """Return a change of the body of every event of a kind."""

    def change(lines: list[dict[str, object]]) -> None:
        for line in lines:
            if line["kind"] == kind:
                line["body"] = {**line["body"], **body}  # type: ignore[dict-item]  # from JSON

    return lambda output: events(output, change)


def chosen(output: Path) -> int:
    """Return the step whose weights the run itself says it delivered."""
    lines = (output / "events.jsonl").read_text().splitlines()
    (done,) = (json.loads(line) for line in lines if json.loads(line)["kind"] == "done")
    return int(done["body"]["best_step"])


def another(output: Path) -> int:
    """Return a step that was scored and not chosen."""
    return 2 if chosen(output) != 2 else 4


def without(kind: str) -> Wrong:
    def change(lines: list[dict[str, object]]) -> None:
        lines[:] = [line for line in lines if line["kind"] != kind]

    return lambda output: events(output, change)


def with_byte_changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_sound_training_keeps_every_promise(output: Path, plan: Plan) -> None:
    assert broken(read_trained(output, plan)) == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (without("plan"), "does not begin with plan and started"),
        (without("done"), "the last event is delivered"),
        (without("delivered"), "before the end comes hook_cost, not delivered"),
        (without("notice"), "not numbered from 0 without a gap"),
        (without("evaluation"), "no evaluation was reported with a score"),
        (without("checkpoint_saved"), "saved at , scored at 2, 4, 6, 8"),
        (every("evaluation", score=1.0), "the trainer was shown"),
        (
            lambda output: every("done", best_step=another(output))(output),
            "the run calls step {another} best, the scores say {chosen}",
        ),
        (
            lambda output: every("done", checkpoint=f"checkpoint-{another(output)}")(output),
            "with the weights of step {another}, not of step {chosen}",
        ),
        (every("delivered", sha256={}), "the event names , the folder holds README.md"),
        (lambda output: (output / "delivered/config.json").unlink(), "config.json is missing"),
        (lambda output: (output / "delivered/README.md").unlink(), "has no README.md"),
        (
            lambda output: (output / "delivered/README.md").write_text(
                f"| {another(output)} | **chosen** |"
            ),
            "calls",
        ),
        (
            lambda output: shutil.rmtree(output / f"checkpoint-{chosen(output)}"),
            "checkpoint-{chosen}",
        ),
        (lambda output: shutil.rmtree(output / "delivered"), "there is no folder delivered"),
        (lambda output: (output / "a.unfinished").mkdir(), "a.unfinished is left over"),
        (lambda output: (output / "quarantine").mkdir(), "set aside as damaged"),
        (
            lambda output: with_byte_changed(output / "delivered" / "model.safetensors"),
            "model.safetensors differs from that of checkpoint-{chosen}",
        ),
    ],
)
def test_a_promise_that_is_not_kept_is_told(
    wrong: Wrong, told: str, output: Path, plan: Plan
) -> None:
    told = told.format(chosen=chosen(output), another=another(output))
    wrong(output)

    assert told in "\n".join(broken(read_trained(output, plan)))


def test_predictions_that_were_asked_for_must_be_there(output: Path, plan: Plan) -> None:
    asking = replace(plan, predictions=PredictionsPlan(enabled=True))

    assert "none was reported" in broken(read_trained(output, asking))[0]


def test_a_line_that_is_no_event_is_told(output: Path, plan: Plan) -> None:
    with (output / "events.jsonl").open("a") as file:
        file.write("{}\n")

    (problem,) = read_trained(output, plan).problems

    assert problem.what == "event without the field 'event_id'"


def test_a_training_without_events_is_told(tmp_path: Path, plan: Plan) -> None:
    assert broken(read_trained(tmp_path, plan)) == [
        "smoke.events: exit code 0, and no event was written"
    ]


def test_by_reward_the_best_is_the_highest_margin_among_losses_near_the_lowest(
    output: Path, plan: Plan
) -> None:
    def margins(lines: list[dict[str, object]]) -> None:
        evaluations = [line for line in lines if line["kind"] == "evaluation"]
        told = [(1.0, 0.1), (1.04, 0.9), (1.2, 5.0), (1.04, 0.2)]
        for line, (loss, margin) in zip(evaluations, told, strict=True):
            body: dict[str, object] = line["body"]  # type: ignore[assignment]  # from JSON
            body["eval_loss"] = body["score"] = loss
            body["metrics"] = {"eval_rewards/margins": margin}

    events(output, margins)
    by_reward = replace(plan, scorer=replace(plan.scorer, objective=Objective.REWARD))

    assert best_step(read_trained(output, plan)) == 2
    assert best_step(read_trained(output, by_reward)) == 4
