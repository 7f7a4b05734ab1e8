"""Simulated runs, written down or drawn by Hypothesis, and callbacks that interfere or record."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from podproof.harness.simulator import Scenario, SimulatedTrainer
from podproof.harness.stream_events import StreamEvent, event_seen
from podproof.harness.trainer_loop import EVENTS
from podproof.runtime.plan import MethodName

FLAGS_BY_HOOK = {
    "on_epoch_begin": ("should_training_stop", "should_epoch_stop"),
    "on_step_begin": ("should_training_stop", "should_epoch_stop"),
    "on_substep_end": ("should_training_stop", "should_epoch_stop"),
    "on_pre_optimizer_step": ("should_training_stop",),
    "on_step_end": ("should_training_stop", "should_save", "should_evaluate", "should_log"),
    "on_log": ("should_training_stop", "should_epoch_stop", "should_save", "should_evaluate"),
    "on_evaluate": ("should_training_stop", "should_epoch_stop", "should_save"),
    "on_save": ("should_training_stop", "should_epoch_stop"),
    "on_epoch_end": ("should_training_stop", "should_save", "should_evaluate"),
}


@dataclass
class Interferer:
    """A callback that sets one flag, the `count`-th time (from 0) one hook is called."""

    hook: str
    count: int
    flag: str
    value: bool = True

    def __getattr__(self, name: str) -> Any:
        if name != self.hook:
            raise AttributeError(name)
        return self._interfere

    def _interfere(self, args: object, state: object, control: object, **_: object) -> None:
        if self.count == 0:
            setattr(control, self.flag, self.value)
        self.count -= 1


@dataclass
class Recorder:
    """A callback that keeps every event it sees; of a real trainer or of the simulator."""

    disk: Callable[[], Iterable[int]] | None = None
    events: list[StreamEvent] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        if name not in EVENTS:
            raise AttributeError(name)

        def see(_: object, state: Any, control: object, **given: Any) -> None:
            there = None if self.disk is None else self.disk()
            self.events.append(event_seen(name, state, control, given, there))

        return see


def stream_of(scenario: Scenario, *callbacks: object) -> list[StreamEvent]:
    """Return the events of a simulated run, seen after these callbacks."""
    recorder = Recorder()
    trainer = SimulatedTrainer(scenario, Callbacks([*callbacks, recorder]))
    recorder.disk = lambda: trainer.checkpoints
    trainer.train()
    return recorder.events


@dataclass
class Callbacks:
    """Callbacks called one after the other."""

    callbacks: Sequence[object]

    def __getattr__(self, name: str) -> Any:
        hooks = [hook for each in self.callbacks if (hook := getattr(each, name, None))]
        if not hooks:
            raise AttributeError(name)

        def call(*given: object, **more: object) -> object:
            controls = [hook(*given, **more) for hook in hooks]
            return next((control for control in controls if control is not None), None)

        return call


def run(**changes: Any) -> Scenario:
    """Return a run of 6 steps by its loss, with what the test is about changed."""
    plain = {
        "max_steps": 6,
        "logging_steps": 2,
        "eval_steps": 2,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }
    return Scenario("tried", MethodName.SFT, **{**plain, **changes})


def letters(events: list[StreamEvent]) -> str:
    return "".join(event.letter for event in events)


def steps_of(letter: str, events: list[StreamEvent]) -> list[int]:
    return [event.step for event in events if event.letter == letter]


@st.composite
def interferers(draw: st.DrawFn) -> Interferer:
    hook = draw(st.sampled_from(sorted(FLAGS_BY_HOOK)))
    flag = draw(st.sampled_from(FLAGS_BY_HOOK[hook]))
    return Interferer(hook, draw(st.integers(0, 5)), flag)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Draw a run of a few dozen steps at most."""
    by_epochs = draw(st.booleans())
    return Scenario(
        "drawn",
        draw(st.sampled_from(MethodName)),
        max_steps=draw(st.integers(1, 12)),
        num_train_epochs=draw(st.sampled_from([0.5, 1, 1.5, 2, 3])) if by_epochs else None,
        rows=draw(st.integers(1, 20)),
        per_device_train_batch_size=draw(st.integers(1, 3)),
        micro_batches=draw(st.integers(1, 4)),
        eval_batches=draw(st.integers(1, 3)),
        eval_losses=tuple(draw(st.lists(st.floats(0.5, 3.0), min_size=1, max_size=5))),
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        **draw(_strategies()),
    )


@st.composite
def _strategies(draw: st.DrawFn) -> Mapping[str, Any]:
    """Draw when it logs, evaluates and saves."""
    kinds = ["no", "steps", "epoch"]
    return {
        "logging_strategy": draw(st.sampled_from(kinds)),
        "logging_steps": draw(st.integers(1, 5)),
        "logging_first_step": draw(st.booleans()),
        "eval_strategy": draw(st.sampled_from(kinds)),
        "eval_steps": draw(st.integers(1, 5)),
        "eval_delay": draw(st.sampled_from([0, 0, 2])),
        "eval_on_start": draw(st.booleans()),
        "save_strategy": draw(st.sampled_from([*kinds, "best"])),
        "save_steps": draw(st.integers(1, 5)),
        "save_total_limit": draw(st.sampled_from([None, 1, 2])),
    }
