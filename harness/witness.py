"""Stands between a trainer and an embedded callback, and writes down what every event came to.

Whoever fires the events, the simulator or a recording, sees a callback. Behind it is the one cut
out of a script, a new one for each process.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from podproof.harness.invariants import BOOKS, FLAGS, HookCall, Process, Told
from podproof.runtime.plan import ScorerPlan


@dataclass(frozen=True)
class Violation:
    """An invariant of harness/invariants.py that did not hold, and how."""

    invariant: str
    what: str


@dataclass(frozen=True)
class Seen:
    """One event as it went: what was given and told, the decisions after it, and what was broken.

    `process` counts from 1. `given` is the log or the metrics as the trainer gave them, `score`
    what the trainer is shown, `told` the kinds of what was reported.
    """

    process: int
    event: str
    step: int
    epoch: float
    given: Mapping[str, Any] | None
    score: float | None
    told: tuple[str, ...]
    is_stopping: bool
    is_saving: bool
    broken: tuple[Violation, ...]


@dataclass
class Endpoint:
    """Takes the place of the reporter; its next calls raise `failures`, one each."""

    failures: list[BaseException] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    raised: list[BaseException] = field(default_factory=list)

    def __call__(
        self,
        kind: Any,
        *,
        step: int | None = None,
        epoch: float | None = None,
        body: Mapping[str, Any],
    ) -> None:
        """Keep what is told, also what is then lost."""
        self.told.append((str(kind.value), step, epoch, dict(body)))
        if self.failures:
            self.raised.append(self.failures.pop(0))
            raise self.raised[-1]


class Witness:
    """A callback to whoever fires events; `seen` is everything that came of them."""

    def __init__(self, code: Any, plan: ScorerPlan, own_plan: Any) -> None:
        """Start the first process; `own_plan` is `plan` in the embedded code's own classes."""
        self.code, self.plan, self.own_plan = code, plan, own_plan
        self.seen: list[Seen] = []
        self.number = 0
        self.start_process()

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Return everything that was broken, in order."""
        return tuple(item for seen in self.seen for item in seen.broken)

    def start_process(self) -> None:
        """Begin with a callback that knows nothing, as after the last process was killed."""
        self.number += 1
        self.endpoint, self.stop = Endpoint(), self.code.StopRequest()
        callback = self.code.PodCallback(self.own_plan, self.endpoint, self.stop)
        self.process = Process(self.code, self.plan, self.own_plan, callback)
        new = [getattr(self.stop, name, "nothing") for name in ("reason", "is_awaited")]
        new += [getattr(callback, name, "nothing") for name in ("choice", "stop_reason")]
        if new != [None, False, None, None]:
            what = f"a new process has been told to stop, or to choose: {new}"
            self.mark("started", Violation("remembered", what))

    def __getattr__(self, event: str) -> Any:
        """Return the hook of this name, whether the callback has one or not."""
        if not event.startswith("on_"):
            raise AttributeError(event)
        return partial(self.fire, event)

    def fire(self, event: str, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Fire one event at the callback, look at what came of it, raise what it let through."""
        self.endpoint.told, self.endpoint.raised = [], []
        shown = kwargs.get("logs" if event == "on_log" else "metrics")
        flags = {name: getattr(control, name) for name in FLAGS}
        books = {name: getattr(state, name) for name in BOOKS}
        given = None if shown is None else dict(shown)
        hook = getattr(self.process.callback, event, None)
        escaped: BaseException | None = None
        try:
            if hook is not None:
                hook(args, state, control, **kwargs)
        except BaseException as error:
            escaped = error
            raise
        finally:
            call = HookCall(
                event,
                args,
                state,
                control,
                flags,
                books,
                given,
                shown,
                told=self.endpoint.told,
                raised=self.endpoint.raised,
                escaped=escaped,
                is_asked_to_stop=self.stop.reason is not None,
            )
            self._write_down(call)

    def mark(self, how: str, *broken: Violation) -> None:
        """Write down what happened to the process between two events."""
        self.seen.append(
            Seen(
                self.number,
                how,
                step=self.seen[-1].step if self.seen else 0,
                epoch=self.seen[-1].epoch if self.seen else 0.0,
                given=None,
                score=None,
                told=(),
                is_stopping=False,
                is_saving=False,
                broken=broken,
            )
        )

    def end_process(self, how: str) -> None:
        """Hold what the callback remembers against what it was told, now that its life is over."""
        found = self._held(self.process.broken_at_end())
        self.mark(how, *(Violation(*broken) for broken in found))

    def _write_down(self, call: HookCall) -> None:
        broken = [Violation(*found) for found in self._held(self.process.broken(call))]
        score = (call.shown or {}).get(self.code.SCORE_KEY)
        self.seen.append(
            Seen(
                self.number,
                call.event,
                step=call.state.global_step,
                epoch=call.state.epoch,
                given=call.given,
                score=score if isinstance(score, float) else None,
                told=tuple(kind for kind, *_ in call.told),
                is_stopping=call.control.should_training_stop,
                is_saving=call.control.should_save,
                broken=tuple(broken),
            )
        )

    @staticmethod
    def _held(found: Any) -> list[tuple[str, str]]:
        """Return what is broken; embedded code that raises while it is looked at is broken too."""
        kept: list[tuple[str, str]] = []
        try:
            kept.extend(found)
        except Exception as error:
            kept.append(("readable", f"{type(error).__name__}: {error}"))
        return kept
