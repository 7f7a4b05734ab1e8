"""Hooks that cannot hurt training: an exception stays inside, each call is counted and timed."""

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from podproof.runtime.events import EventKind
from podproof.runtime.reporter import Report

_Hook = TypeVar("_Hook", bound=Callable[..., None])


@dataclass(slots=True)
class HookCost:
    """How often a hook was called, and the seconds it took: in all, and at its longest."""

    count: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0


class IsolatedHooks:
    """A set of hooks with one book of what they cost and how they failed."""

    def __init__(self, report: Report) -> None:
        """Take the function that events are told to; it must do no I/O."""
        self.report = report
        self.failures: Counter[str] = Counter()
        self.costs: dict[str, HookCost] = {}

    def note_failure(self, hook: str, error: Exception, *, is_told: bool) -> None:
        """Count a failure inside a hook; report each kind of failure once, on rank 0."""
        what = f"{hook} raised {type(error).__name__}: {error}"
        self.failures[what] += 1
        if is_told and self.failures[what] == 1:
            # The report itself may be what fails; then the count is all that can be kept.
            with contextlib.suppress(Exception):
                self.report(EventKind.NOTICE, body={"what": what, "count": 1})

    def costs_body(self) -> dict[str, Any]:
        """Return costs and failures so far as the body of a `hook_cost` event."""
        hooks = {
            name: {"count": cost.count, "total_s": cost.total_s, "longest_s": cost.longest_s}
            for name, cost in self.costs.items()
        }
        return {"hooks": hooks, "failures": dict(self.failures)}

    def _send(self, state: Any, kind: EventKind, body: Mapping[str, Any]) -> None:
        """Report on rank 0: every rank folds the same events and decides the same, one speaks."""
        if state.is_world_process_zero:
            self.report(kind, step=state.global_step, epoch=state.epoch, body=body)


def isolated(hook: _Hook) -> _Hook:
    """Keep an exception of a hook away from the trainer, which would end the run; take its time.

    An exception costs the run nothing but what the hook was about to do. Only an exception that
    is no error, such as the KeyboardInterrupt of a second signal, gets through.
    """
    name = hook.__name__

    @functools.wraps(hook)
    def guarded(self: IsolatedHooks, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        started_s = time.perf_counter()
        try:
            hook(self, args, state, control, **kwargs)
        except Exception as error:
            is_told = getattr(state, "is_world_process_zero", False)
            self.note_failure(name, error, is_told=is_told)
        finally:
            # In here, since a call more is what a hook of a cold cache can least afford.
            cost = self.costs.get(name)
            if cost is None:
                cost = self.costs[name] = HookCost()
            seconds = time.perf_counter() - started_s
            cost.count += 1
            cost.total_s += seconds
            cost.longest_s = max(cost.longest_s, seconds)

    return cast("_Hook", guarded)
