"""A launch makes one pod or none, whatever fails, and whenever we crash."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from podproof.compiler.ir import Cloud, Provider
from podproof.harness.verdict import Cleared
from podproof.launcher.client import PodState, PodStatus, named
from podproof.launcher.emulator import Emulator
from podproof.launcher.emulator_faults import Fault, Operation
from podproof.launcher.errors import (
    AuthenticationFailed,
    LaunchFailed,
    NoCapacity,
    OverLimit,
    ProviderUnavailable,
)
from podproof.launcher.launch import Launched, LaunchOrder, Patience, launch, pod_requests
from podproof.launcher.ledger import LaunchLedger
from podproof.launcher.memory import Failure, MemoryPods
from podproof.launcher.runpod_sdk import RunPodSdk
from podproof.monitor.errors import UnknownRun
from podproof.monitor.records import LaunchStatus
from podproof.monitor.store import Store, open_store

MakeCleared = Callable[..., Cleared]
MakeOrder = Callable[..., LaunchOrder]
LaunchOn = Callable[..., Launched]

FULL = Failure(NoCapacity("no machine"))
REFUSED = Failure(AuthenticationFailed("no key"))
OUTAGE = Failure(ProviderUnavailable("no answer"))
LOST_ANSWER = Failure(ProviderUnavailable("no answer"), makes_pod=True)


def test_the_store_is_a_ledger(store: Store) -> None:
    ledger: LaunchLedger = store

    assert ledger is store


def test_a_launch_makes_one_pod_and_writes_it_down(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    pods = MemoryPods()

    launched = launch(make_cleared(), client=pods, store=store, order=make_order())

    assert list(pods.pods) == [launched.pod_id]
    assert (launched.run_id, launched.is_adopted) == ("run-1", False)
    record = store.launch("run-1")
    assert (record.status, record.pod_id) == (LaunchStatus.CREATED, launched.pod_id)
    assert (record.name, record.cost_usd_per_h) == ("tiny", 0.5)


def test_a_cluster_is_not_rented_and_nothing_is_written(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    pods = MemoryPods()

    with pytest.raises(LaunchFailed, match="2 nodes are a cluster"):
        launch(make_cleared(node_count=2), client=pods, store=store, order=make_order())

    assert pods.pods == {}
    with pytest.raises(UnknownRun):
        store.launch("run-1")


def test_the_paths_of_an_order_are_remembered(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    order = make_order(log_path="/here/log.txt", output_path="/here/output")

    launch(make_cleared(), client=MemoryPods(), store=store, order=order)

    record = store.launch("run-1")
    assert (record.log_path, record.output_path) == ("/here/log.txt", "/here/output")


def test_launching_again_adopts_the_pod(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    pods = MemoryPods()
    first = launch(make_cleared(), client=pods, store=store, order=make_order())

    second = launch(make_cleared(), client=pods, store=store, order=make_order())

    assert second == replace(first, is_adopted=True)
    assert len(pods.requests) == 1


def test_a_pod_of_that_name_is_adopted_before_any_is_made(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    pods = MemoryPods()
    pods.pods["found"] = PodState("found", "run-1", PodStatus.RUNNING, 0.3, None, None)

    launched = launch(make_cleared(), client=pods, store=store, order=make_order())

    assert (launched.pod_id, launched.is_adopted) == ("found", True)
    assert pods.requests == []


def test_gpus_and_data_centers_are_tried_in_order_while_machines_are_wanting(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    pods = MemoryPods([FULL, FULL, FULL])
    cleared = make_cleared(gpu=("A", "B"), data_centers=("EU", "US"))

    launch(cleared, client=pods, store=store, order=make_order())

    assert [(request.gpu, request.data_center) for request in pods.requests] == [
        ("A", "EU"),
        ("A", "US"),
        ("B", "EU"),
        ("B", "US"),
    ]


def test_when_nothing_is_to_be_had_every_place_is_named_and_the_launch_is_over(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    cleared = make_cleared(gpu=("A", "B"), cloud=Cloud.COMMUNITY)

    with pytest.raises(NoCapacity) as caught:
        launch(cleared, client=MemoryPods([FULL, FULL]), store=store, order=make_order())

    assert [problem.where for problem in caught.value.problems] == [
        "pod A COMMUNITY",
        "pod B COMMUNITY",
    ]
    assert (store.launch("run-1").status, store.launch("run-1").reason) == (
        LaunchStatus.ENDED,
        "no-capacity",
    )


def test_any_other_refusal_stops_the_launch_at_once(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    pods = MemoryPods([REFUSED])

    with pytest.raises(AuthenticationFailed):
        launch(make_cleared(), client=pods, store=store, order=make_order())

    assert len(pods.requests) == 1
    assert store.launch("run-1").status is LaunchStatus.ENDED


def test_a_pod_made_without_an_answer_is_adopted(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    pods = MemoryPods([LOST_ANSWER])

    launched = launch(make_cleared(), client=pods, store=store, order=make_order())

    assert list(pods.pods) == [launched.pod_id]
    assert launched.is_adopted
    assert len(pods.requests) == 1


def test_an_outage_that_leaves_no_pod_to_see_keeps_the_launch_open(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    pods = MemoryPods([OUTAGE])

    with pytest.raises(ProviderUnavailable):
        launch(make_cleared(), client=pods, store=store, order=make_order())

    assert len(pods.requests) == 1
    assert store.launch("run-1").status is LaunchStatus.INTENDED


def test_a_launch_that_stayed_open_can_be_tried_again(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    pods = MemoryPods([OUTAGE])
    with suppress(ProviderUnavailable):
        launch(make_cleared(), client=pods, store=store, order=make_order())

    launched = launch(make_cleared(), client=pods, store=store, order=make_order())

    assert list(pods.pods) == [launched.pod_id]


def test_of_two_pods_of_one_name_one_is_kept_and_written_down(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    pods = MemoryPods()
    for pod_id in ("twin-b", "twin-a"):
        pods.pods[pod_id] = PodState(pod_id, "run-1", PodStatus.RUNNING, 0.3, None, None)

    launched = launch(make_cleared(), client=pods, store=store, order=make_order())

    assert list(pods.pods) == [launched.pod_id] == ["twin-a"]
    assert store.launch("run-1").pod_id == "twin-a"


def test_a_pod_that_is_gone_is_not_made_again(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    pods = MemoryPods()
    pods.terminate(launch(make_cleared(), client=pods, store=store, order=make_order()).pod_id)

    with pytest.raises(LaunchFailed, match="is gone"):
        launch(make_cleared(), client=pods, store=store, order=make_order())

    assert len(pods.requests) == 1
    assert store.launch("run-1").reason == "the pod is gone"


def test_a_run_id_that_is_spent_is_refused(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    pods = MemoryPods([REFUSED])
    with suppress(AuthenticationFailed):
        launch(make_cleared(), client=pods, store=store, order=make_order())

    with pytest.raises(LaunchFailed, match="has ended: authentication-failed"):
        launch(make_cleared(), client=pods, store=store, order=make_order())

    assert pods.pods == {}


def test_a_run_id_is_not_given_to_another_script(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    pods = MemoryPods()
    launch(make_cleared("one"), client=pods, store=store, order=make_order())

    with pytest.raises(LaunchFailed, match="another script"):
        launch(make_cleared("two"), client=pods, store=store, order=make_order())


def test_what_is_over_a_limit_is_refused_before_anything_is_written_or_sent(
    store: Store, make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    pods = MemoryPods()

    with pytest.raises(OverLimit):
        launch(make_cleared(), client=pods, store=store, order=make_order(run_id="a/b"))

    assert (pods.requests, store.launches()) == ([], ())


def test_a_rented_pod_with_a_network_volume_has_no_other(
    make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    request = pod_requests(make_cleared().script, make_order())[0]

    assert (request.network_volume, request.volume_gb) == ("local-volume", 0)


def test_a_local_pod_is_asked_for_once_and_without_a_gpu(
    make_cleared: MakeCleared, make_order: MakeOrder
) -> None:
    cleared = make_cleared(provider=Provider.LOCAL, network_volume=None, data_centers=("EU", "US"))

    requests = pod_requests(cleared.script, make_order())

    assert [(request.gpu, request.network_volume) for request in requests] == [
        (None, "local-volume")
    ]


@dataclass(frozen=True)
class BadDay:
    """How requests for a pod fail, and around which call the launcher dies."""

    failures: list[Failure | None]
    at: int
    after: bool


class Crash(BaseException):
    """The launcher's process is gone; nothing of it runs on."""


class Crashing:
    """Lets the launcher die around its n-th call, counted over everything it talks to."""

    def __init__(self, target: object, calls: Iterator[int], day: BadDay) -> None:
        self._target = target
        self._calls = calls
        self._day = day

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            is_last = next(self._calls) == self._day.at
            if is_last and not self._day.after:
                raise Crash
            result = method(*args, **kwargs)
            if is_last:
                raise Crash
            return result

        return call


def bad_days() -> st.SearchStrategy[BadDay]:
    outcomes = st.sampled_from([None, FULL, OUTAGE, LOST_ANSWER])
    return st.builds(BadDay, st.lists(outcomes, max_size=3), st.integers(0, 9), st.booleans())


@settings(max_examples=40, deadline=None)
@given(day=bad_days())
def test_a_crash_at_any_point_leaves_one_pod_or_none_and_the_next_launch_finds_it(
    tmp_path_factory: pytest.TempPathFactory,
    make_cleared: MakeCleared,
    make_order: MakeOrder,
    day: BadDay,
) -> None:
    pods, calls = MemoryPods(day.failures), itertools.count()
    order = make_order(patience=Patience(poll_s=0.0, reconcile_s=0.0))
    with open_store(tmp_path_factory.mktemp("crash") / "store.db") as store:
        client: Any = Crashing(pods, calls, day)
        ledger: Any = Crashing(store, calls, day)
        with suppress(Crash, LaunchFailed):
            launch(make_cleared(), client=client, store=ledger, order=order)

        with suppress(LaunchFailed):
            launch(make_cleared(), client=pods, store=store, order=order)

        assert pods.most_alive <= 1
        known = [record.pod_id for record in store.launches() if record.pod_id]
        assert list(pods.pods) == known


def test_over_runpods_api_the_next_gpu_is_taken_when_the_first_is_out_of_stock(
    emulator: Emulator, client: RunPodSdk, launch_on: LaunchOn
) -> None:
    emulator.fail_next(Operation.DEPLOY_GPU, Fault.NO_CAPACITY)

    launched = launch_on(client)

    pod = client.find(launched.pod_id)
    assert pod is not None
    assert pod.gpu == "L40S"
    assert len(named(client.list_pods(), "run-1")) == 1


@pytest.mark.parametrize(
    "fault", [Fault.DONE_THEN_ERROR, Fault.DONE_THEN_ERRORS, Fault.DONE_THEN_CUT]
)
def test_over_runpods_api_a_pod_whose_making_seemed_to_fail_is_adopted(
    emulator: Emulator, client: RunPodSdk, store: Store, launch_on: LaunchOn, fault: Fault
) -> None:
    emulator.fail_next(Operation.DEPLOY_GPU, fault)
    emulator.fail_next(Operation.MYSELF, Fault.LIST_LAG, Fault.LIST_LAG, Fault.BAD_GATEWAY)

    launched = launch_on(client, network_volume=None)

    assert [pod.pod_id for pod in client.list_pods()] == [launched.pod_id]
    assert store.launch("run-1").pod_id == launched.pod_id


@pytest.mark.parametrize("fault", [Fault.BAD_GATEWAY, Fault.RATE_LIMITED, Fault.NOTHING_DONE])
def test_over_runpods_api_a_failure_without_a_pod_is_not_tried_again_blindly(
    emulator: Emulator, client: RunPodSdk, launch_on: LaunchOn, fault: Fault
) -> None:
    emulator.fail_next(Operation.DEPLOY_GPU, fault)

    with pytest.raises(ProviderUnavailable):
        launch_on(client)

    operations = [request.operation for request in emulator.requests]
    assert operations.count(Operation.DEPLOY_GPU) == 1
    assert client.list_pods() == ()
