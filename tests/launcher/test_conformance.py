"""What every PodClient must do, whoever stands behind it."""

from collections.abc import Callable

import pytest

from podproof.launcher.client import PodClient, PodRequest, PodStatus, named
from podproof.launcher.emulator import Emulator
from podproof.launcher.memory import MemoryPods

MakeRequest = Callable[..., PodRequest]


@pytest.fixture
def emulator(clean_emulator: Emulator) -> Emulator:
    """Share one emulator, for these tests start nothing that they wait for."""
    return clean_emulator


@pytest.fixture(params=["memory", "runpod_sdk"])
def pods(request: pytest.FixtureRequest) -> PodClient:
    """Each client in turn; a new adapter joins here."""
    if request.param == "memory":
        return MemoryPods()
    adapter: PodClient = request.getfixturevalue("client")
    return adapter


def test_a_made_pod_is_found_by_its_id_and_its_name(
    pods: PodClient, make_request: MakeRequest
) -> None:
    pod_id = pods.create(make_request(name="by-name"))

    found = pods.find(pod_id)
    assert found is not None
    assert (found.pod_id, found.name) == (pod_id, "by-name")
    assert [pod.pod_id for pod in named(pods.list_pods(), "by-name")] == [pod_id]


def test_a_made_pod_says_what_it_costs_and_that_it_is_there(
    pods: PodClient, make_request: MakeRequest
) -> None:
    pod = pods.find(pods.create(make_request()))

    assert pod is not None
    assert pod.status in {PodStatus.STARTING, PodStatus.RUNNING}
    assert pod.cost_usd_per_h is not None
    assert pod.cost_usd_per_h > 0


def test_a_price_is_known_before_a_pod_is_made_and_is_what_it_costs(
    pods: PodClient, make_request: MakeRequest
) -> None:
    price = pods.usd_per_h(make_request(gpu_count=2))

    pod = pods.find(pods.create(make_request(gpu_count=2)))
    assert pod is not None
    assert price == pod.cost_usd_per_h


def test_no_price_is_told_of_a_pod_without_a_gpu(
    pods: PodClient, make_request: MakeRequest
) -> None:
    assert pods.usd_per_h(make_request(gpu=None, gpu_count=0)) is None


def test_making_a_pod_twice_makes_two(pods: PodClient, make_request: MakeRequest) -> None:
    first, second = pods.create(make_request()), pods.create(make_request())

    assert first != second
    assert len(named(pods.list_pods(), "run-1")) == 2


def test_a_cpu_pod_can_be_made(pods: PodClient, make_request: MakeRequest) -> None:
    assert pods.find(pods.create(make_request(gpu=None, gpu_count=0))) is not None


def test_a_terminated_pod_is_unknown(pods: PodClient, make_request: MakeRequest) -> None:
    pod_id = pods.create(make_request())

    pods.terminate(pod_id)

    assert pods.find(pod_id) is None
    assert pods.list_pods() == ()


def test_terminating_a_pod_twice_is_fine(pods: PodClient, make_request: MakeRequest) -> None:
    pod_id = pods.create(make_request())

    pods.terminate(pod_id)
    pods.terminate(pod_id)

    assert pods.find(pod_id) is None


def test_terminating_a_pod_that_never_was_is_fine(pods: PodClient) -> None:
    pods.terminate("no-such-pod")

    assert pods.list_pods() == ()


def test_an_unknown_pod_is_not_found(pods: PodClient) -> None:
    assert pods.find("no-such-pod") is None


def test_an_unknown_pod_has_no_log(pods: PodClient) -> None:
    assert pods.read_logs("no-such-pod") == ()


def test_a_request_does_not_show_its_environment(make_request: MakeRequest) -> None:
    assert "hunter2" not in repr(make_request(env=(("PASSWORD", "hunter2"),)))
