"""pod.max_usd becomes time: before a pod is made, on the pod, and from outside."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st
from tests.launcher.conftest import SPEC

from podproof.compiler.ir import Cloud, Provider
from podproof.harness.verdict import Cleared
from podproof.launcher.budget import (
    LEAST_RUN_S,
    OVERHEAD_S,
    affordable,
    outer_allowance,
    own_allowance,
)
from podproof.launcher.client import PodRequest
from podproof.launcher.emulator import Emulator
from podproof.launcher.errors import NoCapacity, OverBudget
from podproof.launcher.launch import Launched, LaunchOrder, Patience, launch
from podproof.launcher.memory import Failure, MemoryPods
from podproof.launcher.runpod_sdk import RunPodSdk
from podproof.launcher.watch import Outcome, follow
from podproof.monitor.records import LaunchStatus
from podproof.monitor.store import Store
from podproof.runtime.deadline import DeadlineLimit

MakeRequest = Callable[..., PodRequest]
LaunchOn = Callable[..., Launched]

ORDERS = (("PODPROOF_MAX_SECONDS", "7200"), ("PODPROOF_LIMIT", "time"))


class PricedPods(MemoryPods):
    """Pods whose prices an hour are given by GPU; one that is not there has none."""

    def __init__(self, **prices: float) -> None:
        super().__init__()
        self.prices = prices

    def usd_per_h(self, request: PodRequest) -> float | None:
        return self.prices.get(request.gpu or "")


def test_what_the_money_pays_for_is_less_than_the_hours_and_is_the_limit(
    make_request: MakeRequest,
) -> None:
    spec = replace(SPEC, max_hours=2.0, max_usd=0.5)

    request = affordable(make_request(env=ORDERS, gpu_count=1), spec, MemoryPods())

    # 0.5 USD at 0.5 an hour is an hour, of which five minutes are spent before and after.
    assert dict(request.env) == {"PODPROOF_MAX_SECONDS": "3300", "PODPROOF_LIMIT": "money"}


def test_hours_that_cost_less_than_the_money_stay_the_limit(make_request: MakeRequest) -> None:
    spec = replace(SPEC, max_hours=2.0, max_usd=50.0)

    request = affordable(make_request(env=ORDERS), spec, MemoryPods())

    assert dict(request.env) == dict(ORDERS)


def test_several_gpus_and_several_pods_cost_several_times_as_much(
    make_request: MakeRequest,
) -> None:
    spec = replace(SPEC, max_hours=9.0, max_usd=4.0, node_count=2)

    request = affordable(make_request(env=ORDERS, gpu_count=2), spec, MemoryPods())

    assert dict(request.env)["PODPROOF_MAX_SECONDS"] == f"{2 * 3600 - OVERHEAD_S:.0f}"


def test_a_pod_whose_price_nobody_tells_is_refused(make_request: MakeRequest) -> None:
    spec = replace(SPEC, max_usd=5.0)

    with pytest.raises(OverBudget, match="its price is not told"):
        affordable(make_request(gpu=None, env=ORDERS), spec, MemoryPods())


def test_a_pod_that_is_paid_for_too_few_minutes_is_refused_with_the_sum(
    make_request: MakeRequest,
) -> None:
    spec = replace(SPEC, max_usd=0.1)

    with pytest.raises(OverBudget, match=r"at \$0.50 an hour pod.max_usd=0.1 pays for 12 minutes"):
        affordable(make_request(env=ORDERS), spec, MemoryPods())


def test_a_local_pod_costs_nothing_and_keeps_its_hours(make_request: MakeRequest) -> None:
    spec = replace(SPEC, provider=Provider.LOCAL, max_usd=0.01)

    request = make_request(gpu=None, env=ORDERS)

    assert affordable(request, spec, MemoryPods()) == request


@given(
    max_usd=st.floats(0.01, 1000.0),
    usd_per_h=st.floats(0.01, 50.0),
    max_hours=st.floats(0.1, 720.0),
)
def test_by_its_own_clock_and_from_outside_a_pod_costs_no_more_than_it_may(
    max_usd: float, usd_per_h: float, max_hours: float
) -> None:
    spec = replace(SPEC, max_hours=max_hours, max_usd=max_usd)

    own = own_allowance(spec, usd_per_h)
    outer = outer_allowance(spec, usd_per_h, margin_s=1800.0)

    assert (own.seconds + OVERHEAD_S) / 3600 * usd_per_h <= max_usd * (1 + 1e-9) or (
        own.limit is DeadlineLimit.TIME and own.seconds / 3600 * usd_per_h <= max_usd
    )
    assert outer.seconds / 3600 * usd_per_h <= max_usd * (1 + 1e-9)
    assert own.seconds <= max_hours * 3600
    assert own.seconds < outer.seconds


def test_gpus_beyond_the_budget_are_passed_over(
    store: Store, make_cleared: Callable[..., Cleared], make_order: Callable[..., LaunchOrder]
) -> None:
    pods = PricedPods(dear=90.0, cheap=1.0)
    cleared = make_cleared(gpu=("dear", "unpriced", "cheap"), max_usd=2.0)

    launch(cleared, client=pods, store=store, order=make_order())

    assert [request.gpu for request in pods.requests] == ["cheap"]


def test_when_no_gpu_keeps_the_budget_nothing_is_made_and_each_is_named(
    store: Store, make_cleared: Callable[..., Cleared], make_order: Callable[..., LaunchOrder]
) -> None:
    pods = PricedPods(dear=90.0)
    cleared = make_cleared(gpu=("dear", "unpriced"), max_usd=2.0)

    with pytest.raises(OverBudget) as caught:
        launch(cleared, client=pods, store=store, order=make_order())

    assert [problem.where for problem in caught.value.problems] == [
        "pod dear SECURE",
        "pod unpriced SECURE",
    ]
    assert pods.requests == []
    assert (store.launch("run-1").status, store.launch("run-1").reason) == (
        LaunchStatus.ENDED,
        "over-budget",
    )


def test_a_lack_of_machines_is_told_beside_what_was_too_dear(
    store: Store, make_cleared: Callable[..., Cleared], make_order: Callable[..., LaunchOrder]
) -> None:
    pods = MemoryPods([Failure(NoCapacity("no machine"))])
    cleared = make_cleared(gpu=("A", None), max_usd=2.0)

    with pytest.raises(NoCapacity) as caught:
        launch(cleared, client=pods, store=store, order=make_order())

    assert len(caught.value.problems) == 2


def test_a_pod_that_has_cost_what_it_may_is_ended_from_outside(
    store: Store, make_cleared: Callable[..., Cleared]
) -> None:
    pods = MemoryPods()
    order = LaunchOrder("run-1", patience=Patience(poll_s=0.01))
    launched = launch(
        make_cleared(max_hours=9.0, max_usd=1.0), client=pods, store=store, order=order
    )
    spent = replace(launched, deadline_unix_s=launched.deadline_unix_s - 2 * 3600)

    outcome = follow(
        spent, client=pods, store=store, on_tick=lambda _pod: None, patience=order.patience
    )

    assert launched.deadline_unix_s == store.launch("run-1").intended_unix_s + 2 * 3600
    assert (outcome, pods.pods) == (Outcome.OUT_OF_MONEY, {})


@pytest.mark.parametrize(
    ("cloud", "price"), [(Cloud.SECURE, 1.10), (Cloud.COMMUNITY, 0.80), (Cloud.ALL, 1.10)]
)
def test_runpods_price_is_that_of_the_cloud_and_of_all_gpus(
    client: RunPodSdk, make_request: MakeRequest, cloud: Cloud, price: float
) -> None:
    request = make_request(gpu="NVIDIA RTX A6000", gpu_count=2, cloud=cloud)

    assert client.usd_per_h(request) == pytest.approx(price)


def test_a_pod_out_of_money_ends_its_script_and_itself(
    emulator: Emulator,
    client: RunPodSdk,
    launch_on: LaunchOn,
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    least = (OVERHEAD_S + LEAST_RUN_S) / 3600 * 0.45
    script = "import os; print(os.environ['PODPROOF_LIMIT'], os.environ['PODPROOF_MAX_SECONDS'])"

    pod = launch_on(client, script, max_hours=9.0, max_usd=least + 1e-9)

    wait_until(lambda: client.find(pod.pod_id) is None)
    assert "money 600" in emulator.log_path(pod.pod_id).read_text()
