"""Streams with faults: a sound callback survives them; a broken one fails a small one."""

import json
from pathlib import Path
from typing import Any

import pytest

from podproof.compiler.ir import PodScript
from podproof.harness.asking import asked_within
from podproof.harness.drawn import subject_of
from podproof.harness.dryrun import FailingStream, failing_stream, stream_problem
from podproof.harness.embedded import embedded
from podproof.harness.errors import BadStream
from podproof.harness.proofs import STREAMS
from podproof.harness.streams import (
    STREAM_KEY,
    Change,
    Fault,
    FaultKind,
    FaultStream,
    play,
    save_stream,
    stream_of,
    stream_to_json,
)
from podproof.harness.witness import Seen
from podproof.runtime.plan import MethodName
from tests.harness.conftest import Tamper, script_of


def failing(script: PodScript) -> FailingStream | None:
    with embedded(script.text) as code:
        return failing_stream(code, script.run.plan, STREAMS)


def played(script: PodScript, stream: FaultStream) -> list[Seen]:
    with embedded(script.text) as code:
        return play(stream, subject_of(code, script.run.plan.scorer)).seen


def broken(script: PodScript, stream: FaultStream) -> set[str]:
    return {it.invariant for seen in played(script, stream) for it in seen.broken}


@pytest.mark.parametrize(
    "overrides",
    [
        ("experiment=tiny_sft",),
        ("experiment=tiny_dpo", "scorer.objective=reward", "trainer.save_total_limit=null"),
        ("experiment=tiny_orpo", "scorer.early_stopping.patience=1", "scorer.redrawn_eval=true"),
    ],
)
def test_a_sound_callback_survives_every_stream(overrides: tuple[str, ...]) -> None:
    assert failing(script_of(*overrides)) is None


# What is changed in the script, by what, and the invariant that must be broken.
TAMPERED: dict[str, tuple[str, str, str]] = {
    "a hook fails on NaN": (
        "            self._unread.append(kept)\n",
        "            self._unread.append(dict(kept, whole=int(logs['loss'] * 1000)))\n",
        "counted",
    ),
    "a hook needs a key that may be missing": (
        '        path = f"{args.output_dir}/',
        '        _ = state.log_history[-1]["eval_loss"]\n        path = f"{args.output_dir}/',
        "counted",
    ),
    "an exception leaves a hook": (
        "        except Exception as error:\n            is_told",
        "        except ValueError as error:\n            is_told",
        "isolated",
    ),
    "a second signal is swallowed": (
        "        except Exception as error:\n            is_told",
        "        except BaseException as error:\n            is_told",
        "isolated",
    ),
    "state is kept over restarts": (
        "        self._forget()\n        for entry",
        "        for entry",
        "booked",
    ),
    "a restart forgets the history": (
        "for entry in state.log_history:\n            self._fold_kept",
        "for entry in ():\n            self._fold_kept",
        "booked",
    ),
    "the last is called best": (
        "is_best = value < state.best_score and step > 0",
        "is_best = step > 0",
        "told",
    ),
    "a stop that was asked for is not made": (
        "            control.should_training_stop = True\n\n    @isolated",
        "\n    @isolated",
        "decided",
    ),
    "the trainer is shown a tensor's kind of number": (
        "logs[SCORE_KEY] = self._metric_at(state.global_step)",
        "logs[SCORE_KEY] = str(self._metric_at(state.global_step))",
        "scored",
    ),
    "the log is changed": (
        "            self._unread.append(kept)\n",
        "            self._unread.append(kept)\n            logs['loss'] = 0.0\n",
        "left_alone",
    ),
    "every rank tells": (
        "        if state.is_world_process_zero:\n            self.report(kind",
        "        if state is not None:\n            self.report(kind",
        "told",
    ),
}


@pytest.mark.parametrize("slip", TAMPERED)
def test_a_callback_with_a_slip_fails_a_stream(slip: str, tamper: Tamper) -> None:
    old, new, invariant = TAMPERED[slip]
    script = tamper(old, new)

    with asked_within(60.0, is_shrinking=False):
        found = failing(script)

    assert found is not None
    assert found.violation.invariant == invariant


def test_the_failing_stream_is_as_small_as_it_gets(tamper: Tamper) -> None:
    script = tamper(*TAMPERED["a stop that was asked for is not made"][:2])

    found = failing(script)

    assert found is not None
    assert [fault.kind for fault in found.stream.faults] == [FaultKind.SIGNAL]
    assert found.stream.changes == ()


def test_a_failing_stream_is_saved_and_fails_again_when_it_is_played(
    tamper: Tamper, tmp_path: Path
) -> None:
    script = tamper(*TAMPERED["the last is called best"][:2])
    found = failing(script)
    assert found is not None

    problem = stream_problem(found, tmp_path)

    (path,) = (tmp_path / "streams").glob("*.json")
    assert f"podproof replay {path} --script" in problem.way_out
    stream = stream_of(json.loads(path.read_text()), str(path))
    assert found.violation.invariant in broken(script, stream)
    assert broken(script_of("experiment=tiny_sft"), stream) == set()


def test_without_a_home_the_problem_still_tells_the_stream(tamper: Tamper) -> None:
    found = failing(tamper(*TAMPERED["the last is called best"][:2]))
    assert found is not None

    problem = stream_problem(found, None)

    assert "of the smallest stream: sft" in problem.what
    assert "dry-run.md#told" in problem.way_out


def test_the_same_script_fails_the_same_stream_every_time(tamper: Tamper) -> None:
    script = tamper(*TAMPERED["every rank tells"][:2])

    assert failing(script) == failing(script)


@pytest.mark.parametrize("method", list(MethodName))
def test_a_process_that_is_killed_goes_on_from_its_last_checkpoint(method: MethodName) -> None:
    stream = FaultStream(
        method, max_steps=6, eval_losses=(3.0, 1.0, 2.0), faults=(Fault(25, FaultKind.KILL),)
    )

    seen = played(script_of(f"experiment=tiny_{method.value}"), stream)

    begun = [item.step for item in seen if item.event == "on_train_begin"]
    assert begun == [0, 2]
    assert [item.process for item in seen if item.event == "ended"] == [2]


def test_what_another_callback_breaks_is_tried_again_by_the_same_process(sound: PodScript) -> None:
    stream = FaultStream(MethodName.SFT, max_steps=4, faults=(Fault(25, FaultKind.CRASH),))

    seen = played(sound, stream)

    assert [item.event for item in seen if item.event in {"crashed", "ended"}] == [
        "crashed",
        "ended",
    ]
    assert {item.process for item in seen} == {1}


def test_an_evaluation_at_the_start_of_a_resumed_run_counts_for_the_trainer_too(
    sound: PodScript,
) -> None:
    # Saved for a signal at a step without an evaluation, and evaluated first of all when resumed.
    stream = FaultStream(
        MethodName.SFT,
        max_steps=2,
        eval_on_start=True,
        faults=(Fault(0, FaultKind.SIGNAL), Fault(13, FaultKind.KILL)),
    )

    assert broken(sound, stream) == set()


@pytest.mark.parametrize(
    "stream",
    [
        FaultStream(MethodName.ORPO),
        FaultStream(
            MethodName.DPO,
            eval_losses=(float("inf"), None, "x"),
            changes=(Change(1, "loss", 10**400, is_missing=False),),
            faults=(Fault(3, FaultKind.TAKEN),),
            scorer={"trend": {"window": 6}},
        ),
    ],
)
def test_a_saved_stream_is_read_back_as_it_was(stream: FaultStream, tmp_path: Path) -> None:
    path = save_stream(stream, tmp_path)

    assert stream_of(json.loads(path.read_text()), "here") == stream


def test_a_saved_stream_with_a_wrong_field_is_refused_by_its_place() -> None:
    document: dict[str, Any] = json.loads(stream_to_json(FaultStream(MethodName.SFT)))
    document[STREAM_KEY] |= {"method": "ppo", "max_steps": "many"}

    with pytest.raises(BadStream) as caught:
        stream_of(document, "mine.json")

    assert {problem.where for problem in caught.value.problems} == {
        "mine.json.method",
        "mine.json.max_steps",
    }
