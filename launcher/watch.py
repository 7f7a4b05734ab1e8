"""Follow a pod until it is gone; end it when somebody asks, when time is up, or on Ctrl-C."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from types import FrameType

from podproof.compiler.ir import Provider
from podproof.launcher.client import PodClient, PodState
from podproof.launcher.errors import ProviderUnavailable
from podproof.launcher.launch import Launched, Patience
from podproof.launcher.ledger import LaunchLedger
from podproof.runtime.deadline import DeadlineLimit
from podproof.runtime.errors import Problem

# One answer without the pod may be a hiccup of the provider; two in a row are believed.
_MISSES_TO_BELIEVE = 2


class Outcome(StrEnum):
    """Why a pod is gone; whether the training went well is for the run's own events to say."""

    ENDED_ITSELF = "the pod ended itself"
    STOPPED = "somebody asked for its end"
    OUT_OF_TIME = "it did not end itself in time"
    OUT_OF_MONEY = "it had cost as much as it may"
    INTERRUPTED = "the launcher was interrupted"


def follow(
    launched: Launched,
    *,
    client: PodClient,
    store: LaunchLedger,
    on_tick: Callable[[PodState | None], None],
    patience: Patience | None = None,
) -> Outcome:
    """Look at the pod again and again until it is gone, write that down, and return why.

    `on_tick` gets what each look saw. A pod that somebody asked to stop, or that outlived its
    deadline, is terminated. When we are interrupted (Ctrl-C, SIGTERM, any error), a local pod is
    terminated first, for it cannot outlive us; a rented one goes on, and ends itself.
    Raises ProviderUnavailable when the provider has been silent for too long.
    """
    watch = _Watch(launched, client, store, patience or Patience())
    try:
        with _sigterm_as_interrupt():
            outcome = watch.until_gone(on_tick)
    except BaseException:
        if launched.provider is Provider.LOCAL:
            end_pod(launched.pod_id, client=client)
            store.end_launch(launched.run_id, Outcome.INTERRUPTED.value)
        raise
    store.end_launch(launched.run_id, outcome.value)
    return outcome


def end_pod(pod_id: str, *, client: PodClient, tries: int = 5, pause_s: float = 1.0) -> None:
    """Terminate a pod, and make sure that it is gone.

    Raises ProviderUnavailable when, after all tries, it is there or may be there.
    """
    for attempt in range(tries):
        time.sleep(pause_s if attempt else 0)
        try:
            client.terminate(pod_id)
            if client.find(pod_id) is None:
                return
        except ProviderUnavailable:
            continue
    what = f"the pod {pod_id} could not be ended, and goes on costing money"
    raise ProviderUnavailable(Problem("pod", what, "end it in the provider's console"))


class _Watch:
    """One pod, watched until it is gone."""

    def __init__(
        self, launched: Launched, client: PodClient, store: LaunchLedger, patience: Patience
    ) -> None:
        self._launched = launched
        self._client = client
        self._store = store
        self._patience = patience
        self._outcome = Outcome.ENDED_ITSELF

    def until_gone(self, on_tick: Callable[[PodState | None], None]) -> Outcome:
        """Return why the pod is gone, once it is."""
        misses = 0
        while True:
            pod = self._look()
            on_tick(pod)
            misses = 0 if pod else misses + 1
            if misses == _MISSES_TO_BELIEVE:
                return self._outcome
            if pod:
                self._end_if_due()
            time.sleep(self._patience.poll_s)

    def _look(self) -> PodState | None:
        """Ask for the pod, for as long as a silent provider is worth asking again."""
        end_monotonic_s = time.monotonic() + self._patience.outage_s
        while True:
            try:
                return self._client.find(self._launched.pod_id)
            except ProviderUnavailable:
                if time.monotonic() >= end_monotonic_s:
                    raise
            time.sleep(self._patience.poll_s)

    def _end_if_due(self) -> None:
        if self._store.is_stop_requested(self._launched.run_id):
            self._outcome = Outcome.STOPPED
        elif time.time() >= self._launched.deadline_unix_s:
            is_money = self._launched.limit is DeadlineLimit.MONEY
            self._outcome = Outcome.OUT_OF_MONEY if is_money else Outcome.OUT_OF_TIME
        if self._outcome is not Outcome.ENDED_ITSELF:
            # If this fails, the pod is there at the next look, and is asked again.
            with suppress(ProviderUnavailable):
                self._client.terminate(self._launched.pod_id)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, so that it finds the same way out as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
