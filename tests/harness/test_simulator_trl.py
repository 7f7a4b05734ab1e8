"""The simulator against real TRL trainers on the CPU: the same runs, event by event."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

import pytest
from hypothesis import Phase, given, settings, strategies as st

from podproof.harness.recording import Recording
from podproof.harness.stream_events import StreamEvent, differing
from podproof.harness.stream_grammar import violations
from podproof.harness.stream_replay import replay
from podproof.runtime.plan import MethodName
from tests.harness.drawn_runs import FLAGS_BY_HOOK
from tests.harness.real_trainer import TRL_KEYS, Measured, Run, real_streams, simulated_streams

# Runs that between them meet nearly every rule, for every build.
CHOSEN = {
    "epochs, accumulation cut short, two of three checkpoints kept, two eval sets": Run(
        MethodName.SFT,
        {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 3,
            "per_device_eval_batch_size": 2,
            "logging_steps": 2,
            "logging_first_step": True,
            "eval_strategy": "steps",
            "eval_steps": 1,
            "eval_on_start": True,
            "save_steps": 1,
            "save_total_limit": 2,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_near_loss",
        },
        rows=9,
        eval_rows={"near": 3, "far": 2},
        nan_batches=frozenset({1, 2, 4}),
    ),
    "a crash in mid-epoch, resumed; the last step off the grid; early stopping": Run(
        MethodName.DPO,
        {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 2,
            "logging_steps": 3,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "save_steps": 2,
            "load_best_model_at_end": True,
            "greater_is_better": True,
            "dataloader_drop_last": True,
            "per_device_eval_batch_size": 1,
        },
        rows=7,
        eval_rows=3,
        crash_at=3,
        patience=1,
        is_recorder_last=False,
    ),
    "a stop between micro-batches; saves of the best only; logs by epoch": Run(
        MethodName.ORPO,
        {
            "max_steps": 8,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 2,
            "logging_strategy": "epoch",
            "eval_strategy": "steps",
            "eval_steps": 2,
            "eval_delay": 2,
            "save_strategy": "best",
            "save_total_limit": 1,
            "load_best_model_at_end": True,
        },
        rows=6,
        eval_rows=2,
        interference=(("on_substep_end", 6, "should_training_stop", True),),
    ),
    "a run that ended in mid-epoch, resumed; evaluated and asked to predict afterwards": Run(
        MethodName.DPO,
        {
            "max_steps": 2,
            "per_device_train_batch_size": 1,
            "logging_steps": 1,
            "save_steps": 2,
        },
        rows=3,
        eval_rows=9,
        goes_on=True,
        afterwards=True,
    ),
    "an absent metric; an epoch that a callback ends": Run(
        MethodName.SFT,
        {
            "num_train_epochs": 2.5,
            "per_device_train_batch_size": 2,
            "logging_steps": 0.4,
            "logging_nan_inf_filter": False,
            "eval_strategy": "epoch",
            "save_strategy": "epoch",
            "metric_for_best_model": "absent",
        },
        rows=5,
        eval_rows=2,
        interference=(("on_step_end", 1, "should_epoch_stop", True),),
        nan_batches=frozenset({1}),
    ),
}


def differences(run: Run, real: list[Measured]) -> Iterator[str]:
    """Yield what differs between a run in a real trainer and in the simulator."""
    for training, (one, other) in enumerate(
        zip_longest(real, simulated_streams(run, real), fillvalue=Measured())
    ):
        if one.error != other.error:
            yield f"training {training}: {one.error}, simulated {other.error}"
        for number, (seen, simulated) in enumerate(zip_longest(one.events, other.events)):
            where = f"training {training}, event {number}"
            if seen is None or simulated is None:
                yield f"{where}: {(seen or simulated).name} on one side only"
                break
            yield from (f"{where} ({seen.name}): {what}" for what in differing(seen, simulated))
            yield from (f"{where}: {what}" for what in _other_numbers(run, seen, simulated))
        whole = one.error is None
        yield from (f"real: {what}" for what in violations(one.events, is_whole=whole))


def _other_numbers(run: Run, real: StreamEvent, simulated: StreamEvent) -> Iterator[str]:
    """Yield in which way the logs differ that the simulator made of the losses."""
    if real.letter not in "LF":
        return
    one, other = real.numbers or {}, simulated.numbers or {}
    key = "loss" if real.letter == "L" else "train_loss"
    if not math.isclose(one[key], other[key], rel_tol=1e-4) and not (
        math.isnan(one[key]) and math.isnan(other[key])
    ):
        yield f"{key}: {one[key]}, simulated {other[key]}"
    has_metrics = TRL_KEYS[run.method] in one
    if has_metrics != (TRL_KEYS[run.method] in other):
        yield f"metrics of training in the log: {has_metrics}"


def recording_of(run: Run, measured: Measured) -> Recording:
    """Return a real training as it would have been recorded."""
    return Recording(
        name="real",
        method=run.method.value,
        arguments=run.arguments,
        rows=run.rows,
        eval_rows=run.eval_rows,
        rank=0,
        events=tuple(measured.events),
        outcome=measured.error or "ok",
        message="metric_for_best_model" if measured.error == "KeyError" else "",
        history=(),
        checkpoints_at_end=None,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Measured]]:
    """Return the real trainings of a chosen run, each done once."""

    @functools.cache
    def done(name: str) -> list[Measured]:
        return real_streams(CHOSEN[name], tmp_path_factory.mktemp("run"))

    return done


@pytest.mark.parametrize("name", CHOSEN)
def test_a_real_trainer_and_the_simulator_agree_event_by_event(
    name: str, trained: Callable[[str], list[Measured]]
) -> None:
    assert list(differences(CHOSEN[name], trained(name))) == []


@pytest.mark.parametrize("name", CHOSEN)
def test_a_fresh_recording_of_a_real_trainer_is_replayed_from_its_header(
    name: str, trained: Callable[[str], list[Measured]]
) -> None:
    replays = [replay(recording_of(CHOSEN[name], one)) for one in trained(name)]

    assert [replayed.differences for replayed in replays] == [()] * len(replays)
    assert all(replayed.is_exact for replayed in replays)


FREE = st.sampled_from(["no", "steps", "epoch"])


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Draw a run that TrainingArguments accept."""
    method = draw(st.sampled_from(MethodName))
    eval_rows: Any = draw(st.integers(1, 4))
    if method is not MethodName.ORPO and draw(st.booleans()):
        eval_rows = {"near": eval_rows, "far": draw(st.integers(1, 4))}
    arguments = draw(_arguments(eval_rows))
    hooks = st.sampled_from(sorted(FLAGS_BY_HOOK))
    interference = [draw(_interference(hook)) for hook in draw(st.lists(hooks, max_size=2))]
    has_best = arguments.get("load_best_model_at_end") and arguments["eval_strategy"] != "no"
    return Run(
        method,
        arguments,
        rows=draw(st.integers(arguments["per_device_train_batch_size"], 10)),
        eval_rows=eval_rows,
        interference=tuple(interference),
        is_recorder_last=draw(st.booleans()),
        patience=draw(st.sampled_from([None, 1, 2])) if has_best else None,
        crash_at=draw(st.sampled_from([None, None, 1, 2, 3, 5])),
        goes_on=draw(st.booleans()),
        nan_batches=frozenset(draw(st.lists(st.integers(0, 8), max_size=3))),
    )


@st.composite
def _arguments(draw: st.DrawFn, eval_rows: object) -> dict[str, Any]:
    eval_strategy = draw(FREE)
    if draw(st.booleans()):
        length: dict[str, object] = {"num_train_epochs": draw(st.sampled_from([0.5, 1, 1.5, 2, 3]))}
    else:
        length = {"max_steps": draw(st.integers(1, 9))}
    return length | {
        "per_device_train_batch_size": draw(st.integers(1, 3)),
        "per_device_eval_batch_size": draw(st.integers(1, 3)),
        "gradient_accumulation_steps": draw(st.integers(1, 4)),
        "logging_strategy": draw(FREE),
        "logging_steps": draw(st.sampled_from([1, 2, 3, 0.3])),
        "logging_first_step": draw(st.booleans()),
        "logging_nan_inf_filter": draw(st.booleans()),
        "eval_strategy": eval_strategy,
        "eval_delay": draw(st.sampled_from([0, 0, 2])),
        "eval_on_start": draw(st.booleans()),
        "save_total_limit": draw(st.sampled_from([None, 1, 2])),
        "dataloader_drop_last": draw(st.booleans()),
        **draw(_choice_of_the_best(eval_strategy, eval_rows)),
    }


@st.composite
def _interference(draw: st.DrawFn, hook: str) -> tuple[str, int, str, bool]:
    flag = draw(st.sampled_from(FLAGS_BY_HOOK[hook]))
    is_stop = flag in {"should_training_stop", "should_epoch_stop"}
    return hook, draw(st.integers(0, 5)), flag, is_stop or draw(st.booleans())


@st.composite
def _choice_of_the_best(
    draw: st.DrawFn, eval_strategy: str, eval_rows: object
) -> Mapping[str, object]:
    loss = "eval_near_loss" if isinstance(eval_rows, Mapping) else "eval_loss"
    metric = draw(st.sampled_from([loss, loss, loss, "absent"]))
    steps = draw(st.integers(1, 4))
    chosen: dict[str, object] = {
        "greater_is_better": draw(st.sampled_from([None, True, False])),
        "eval_steps": steps,
        "metric_for_best_model": metric,
    }
    if eval_strategy != "no" and draw(st.booleans()):
        save = draw(st.sampled_from([eval_strategy, "best"]))
        multiple = draw(st.integers(1, 2))
        return chosen | {
            "load_best_model_at_end": True,
            "save_strategy": save,
            "save_steps": steps * multiple,
        }
    return chosen | {
        "metric_for_best_model": draw(st.sampled_from([None, metric])),
        "save_strategy": draw(FREE),
        "save_steps": draw(st.sampled_from([1, 2, 3, 0.25])),
    }


@pytest.mark.slow
@settings(max_examples=60, phases=(Phase.generate,))
@given(run=runs())
def test_whatever_is_drawn_a_real_trainer_and_the_simulator_agree(
    run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    real = real_streams(run, tmp_path_factory.mktemp("run"))

    assert list(differences(run, real)) == []
    assert all(replay(recording_of(run, one)).is_exact for one in real)
