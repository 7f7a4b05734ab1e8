"""A budget of processor time for code that is not ours: it may never end."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Again and again, should the code that is cut off keep the first of them to itself.
_AGAIN_S = 0.5


class OverBudgetError(BaseException):
    """The budget is over; no Exception, so that neither hooks nor Hypothesis keep it."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Run the body; raise OverBudgetError when it takes longer than this on the processor.

    In the main thread the body is cut off there and then, even in the midst of a loop without end.
    Elsewhere, and where there are no interval timers, it is told at the end.
    """
    is_main = threading.current_thread() is threading.main_thread()
    with _alarm(seconds) if hasattr(signal, "setitimer") and is_main else _stopwatch(seconds):
        yield


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    handler = signal.signal(signal.SIGPROF, _cut_off)
    # A timer of zero seconds would never ring.
    signal.setitimer(signal.ITIMER_PROF, max(seconds, 1e-6))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, handler)


def _cut_off(_number: int, _frame: FrameType | None) -> None:
    signal.setitimer(signal.ITIMER_PROF, _AGAIN_S)
    raise OverBudgetError


@contextmanager
def _stopwatch(seconds: float) -> Iterator[None]:
    started_s = time.process_time()
    yield
    if time.process_time() - started_s > seconds:
        raise OverBudgetError
