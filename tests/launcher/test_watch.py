"""A pod is followed until it is gone, and ended when it should not go on."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from podproof.compiler.ir import Provider
from podproof.launcher.client import PodState
from podproof.launcher.emulator import Emulator
from podproof.launcher.emulator_faults import Fault, Operation
from podproof.launcher.errors import ProviderUnavailable
from podproof.launcher.launch import Launched, Patience
from podproof.launcher.memory import MemoryPods
from podproof.launcher.runpod_sdk import RunPodSdk
from podproof.launcher.watch import Outcome, end_pod, follow
from podproof.monitor.records import LaunchStatus
from podproof.monitor.store import Store

QUICK = Patience(poll_s=0.01, outage_s=0.1)


class ForgetfulPods(MemoryPods):
    """Pods that are missing from the answers to some questions, though they are there."""

    def __init__(self, missing: set[int]) -> None:
        super().__init__()
        self.missing = missing
        self.questions = 0

    def find(self, pod_id: str) -> PodState | None:
        self.questions += 1
        return None if self.questions in self.missing else super().find(pod_id)


class SilentPods(MemoryPods):
    """Pods whose provider does not answer the first questions."""

    def __init__(self, silence: int) -> None:
        super().__init__()
        self.silence = silence

    def find(self, pod_id: str) -> PodState | None:
        self.silence -= 1
        if self.silence >= 0:
            raise ProviderUnavailable("no answer")
        return super().find(pod_id)


def end_after(ticks: int, end: Callable[[], None]) -> Callable[[PodState | None], None]:
    """Do something at the n-th tick, counted from 1."""
    countdown = iter([*[lambda: None] * (ticks - 1), end])

    def on_tick(_pod: PodState | None) -> None:
        next(countdown, lambda: None)()

    return on_tick


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_pod_that_ends_itself_is_followed_to_its_end(
    store: Store, launch_on: Callable[..., Launched]
) -> None:
    pods = MemoryPods()
    launched = launch_on(pods)
    end = end_after(3, lambda: pods.terminate(launched.pod_id))

    outcome = follow(launched, client=pods, store=store, on_tick=end, patience=QUICK)

    assert outcome is Outcome.ENDED_ITSELF
    record = store.launch("run-1")
    assert (record.status, record.reason) == (LaunchStatus.ENDED, "the pod ended itself")


def test_each_look_is_told_about(store: Store, launch_on: Callable[..., Launched]) -> None:
    pods = MemoryPods()
    launched = launch_on(pods)
    seen: list[PodState | None] = []
    end = end_after(2, lambda: pods.terminate(launched.pod_id))

    def on_tick(pod: PodState | None) -> None:
        seen.append(pod)
        end(pod)

    follow(launched, client=pods, store=store, on_tick=on_tick, patience=QUICK)

    assert [pod.pod_id if pod else None for pod in seen] == [launched.pod_id] * 2 + [None] * 2


def test_one_answer_without_the_pod_is_not_believed(
    store: Store, launch_on: Callable[..., Launched]
) -> None:
    pods = ForgetfulPods(missing={1, 3})
    launched = launch_on(pods)
    end = end_after(5, lambda: pods.terminate(launched.pod_id))

    follow(launched, client=pods, store=store, on_tick=end, patience=QUICK)

    assert pods.questions == 7


def test_a_run_that_is_asked_to_stop_loses_its_pod(
    store: Store, launch_on: Callable[..., Launched]
) -> None:
    pods = MemoryPods()
    launched = launch_on(pods)
    stop = end_after(2, lambda: store.request_stop("run-1"))

    outcome = follow(launched, client=pods, store=store, on_tick=stop, patience=QUICK)

    assert (outcome, pods.pods) == (Outcome.STOPPED, {})


def test_a_pod_that_outlives_its_deadline_is_ended(
    store: Store, launch_on: Callable[..., Launched]
) -> None:
    pods = MemoryPods()
    late = replace(launch_on(pods), deadline_unix_s=time.time())

    outcome = follow(late, client=pods, store=store, on_tick=print, patience=QUICK)

    assert (outcome, pods.pods) == (Outcome.OUT_OF_TIME, {})


def test_a_short_silence_of_the_provider_changes_nothing(
    store: Store, launch_on: Callable[..., Launched]
) -> None:
    pods = SilentPods(silence=2)
    launched = launch_on(pods)
    end = end_after(1, lambda: pods.terminate(launched.pod_id))

    outcome = follow(launched, client=pods, store=store, on_tick=end, patience=QUICK)

    assert outcome is Outcome.ENDED_ITSELF


def test_a_long_silence_of_the_provider_is_an_error_and_the_launch_stays_open(
    store: Store, launch_on: Callable[..., Launched]
) -> None:
    pods = SilentPods(silence=10_000)
    launched = launch_on(pods)

    with pytest.raises(ProviderUnavailable):
        follow(launched, client=pods, store=store, on_tick=print, patience=QUICK)

    assert store.launch("run-1").status is LaunchStatus.CREATED


def test_ctrl_c_ends_a_local_pod(store: Store, launch_on: Callable[..., Launched]) -> None:
    pods = MemoryPods()
    launched = launch_on(pods, provider=Provider.LOCAL)

    with pytest.raises(KeyboardInterrupt):
        follow(launched, client=pods, store=store, on_tick=end_after(2, interrupt), patience=QUICK)

    assert pods.pods == {}
    assert store.launch("run-1").reason == "the launcher was interrupted"


def test_ctrl_c_leaves_a_rented_pod_to_its_work(
    store: Store, launch_on: Callable[..., Launched]
) -> None:
    pods = MemoryPods()
    launched = launch_on(pods)

    with pytest.raises(KeyboardInterrupt):
        follow(launched, client=pods, store=store, on_tick=end_after(2, interrupt), patience=QUICK)

    assert list(pods.pods) == [launched.pod_id]
    assert store.launch("run-1").status is LaunchStatus.CREATED


def test_sigterm_is_an_interrupt_while_a_pod_is_followed_and_not_after(
    store: Store, launch_on: Callable[..., Launched]
) -> None:
    pods = MemoryPods()
    launched = launch_on(pods, provider=Provider.LOCAL)
    before = signal.getsignal(signal.SIGTERM)
    terminate = end_after(2, lambda: os.kill(os.getpid(), signal.SIGTERM))

    with pytest.raises(KeyboardInterrupt):
        follow(launched, client=pods, store=store, on_tick=terminate, patience=QUICK)

    assert pods.pods == {}
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_end_that_is_ignored_is_asked_for_again(
    emulator: Emulator, client: RunPodSdk, store: Store, launch_on: Callable[..., Launched]
) -> None:
    launched = launch_on(client, env=())
    store.request_stop("run-1")
    emulator.fail_next(Operation.TERMINATE, Fault.NOTHING_DONE, Fault.BAD_GATEWAY)

    outcome = follow(launched, client=client, store=store, on_tick=print, patience=QUICK)

    assert outcome is Outcome.STOPPED
    assert client.list_pods() == ()


def test_ending_a_pod_is_tried_until_it_is_gone(
    emulator: Emulator, client: RunPodSdk, launch_on: Callable[..., Launched]
) -> None:
    launched = launch_on(client)
    emulator.fail_next(Operation.TERMINATE, Fault.NOTHING_DONE, Fault.BAD_GATEWAY)

    end_pod(launched.pod_id, client=client, pause_s=0.01)

    assert client.find(launched.pod_id) is None


def test_a_pod_that_cannot_be_ended_is_not_passed_over_in_silence() -> None:
    with pytest.raises(ProviderUnavailable, match="goes on costing money"):
        end_pod("pod-1", client=SilentPods(silence=10_000), tries=2, pause_s=0.01)
