"""What a finished training left on disk: its events, its scores, its checkpoints, its delivery."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podproof.runtime.checkpoints import checkpoint_step, list_checkpoints
from podproof.runtime.errors import Problem
from podproof.runtime.events import Event, EventKind, event_from_line, number_or_none
from podproof.runtime.plan import Plan


@dataclass(frozen=True)
class Trained:
    """One training as its output folder tells it.

    `log_history` is the trainer's own, of the last checkpoint; `problems` are what is unreadable.
    """

    output: Path
    plan: Plan
    events: Sequence[Event]
    log_history: Sequence[Mapping[str, Any]]
    problems: tuple[Problem, ...] = ()

    def of(self, kind: EventKind) -> tuple[Event, ...]:
        """Return the events of a kind, in their order."""
        return tuple(event for event in self.events if event.kind is kind)

    @property
    def ending(self) -> Mapping[str, Any]:
        """Return the body of the last event."""
        return self.events[-1].body if self.events else {}

    @property
    def scores(self) -> dict[int, float]:
        """Return the score that was reported at each evaluation, by step; lower is better."""
        told = ((item.step, number_or_none(item.body.get("score"))) for item in self._evaluations)
        return {step: score for step, score in told if step is not None and score is not None}

    @property
    def saved_steps(self) -> tuple[int, ...]:
        """Return the steps that were reported as saved."""
        saved = self.of(EventKind.CHECKPOINT_SAVED)
        return tuple(event.step for event in saved if event.step is not None)

    @property
    def final_step(self) -> int | None:
        """Return the step that the last event names."""
        return self.events[-1].step if self.events else None

    @property
    def chosen_step(self) -> int | None:
        """Return the step of the checkpoint that the run ended with."""
        return checkpoint_step(Path(str(self.ending.get("checkpoint"))))

    @property
    def delivered(self) -> str | None:
        """Return the folder of the delivery; None when the weights stay in their checkpoint."""
        path: str | None = self.ending.get("delivered")
        return path

    @property
    def _evaluations(self) -> tuple[Event, ...]:
        return self.of(EventKind.EVALUATION)


def read_trained(output: Path, plan: Plan) -> Trained:
    """Read what a training left in its output folder; what is no event becomes a problem."""
    events: list[Event] = []
    problems: list[Problem] = []
    path = output / "events.jsonl"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            events.append(event_from_line(line))
        except ValueError as error:
            problems.append(Problem(f"events.jsonl:{number}", str(error)))
    checkpoints = list_checkpoints(output)
    state = checkpoints[-1] / "trainer_state.json" if checkpoints else output
    history = json.loads(state.read_text(encoding="utf-8"))["log_history"] if checkpoints else []
    return Trained(output, plan, events, history, tuple(problems))
