"""Launch a cleared script exactly once: never two pods for one run id, never one forgotten.

The order of things is the whole point. The intent is written before the provider is asked; a pod
of the run's name is looked for before one is made, and again after any failure that may have made
one; the pod's id is written before anything else is done with it. So a crash at any point leaves
no pod, or one that the next `launch` of the same run id finds by its name.
"""

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.resources import files

from podproof.compiler.delivery import ReportTarget
from podproof.compiler.ir import PodScript, PodSpec, Provider
from podproof.harness.verdict import Cleared
from podproof.launcher.budget import affordable, outer_allowance
from podproof.launcher.client import PodClient, PodRequest, PodState, named
from podproof.launcher.delivery import wrap
from podproof.launcher.errors import LaunchFailed, NoCapacity, OverBudget, ProviderUnavailable
from podproof.launcher.ledger import LaunchLedger
from podproof.monitor.records import LaunchRecord, LaunchStatus
from podproof.runtime.deadline import DeadlineLimit
from podproof.runtime.errors import Problem

LOCAL_VOLUME = "local-volume"
_CLUSTER_WAY_OUT = (
    "rent it at RunPod and start the script on each node: docs/how-to/several-gpus.md"
)


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds.

    `poll_s` lies between two looks at the provider. A pod that may have been made is looked for
    during `reconcile_s`. A provider may be silent for `outage_s`. A pod that should have ended
    itself is ended `margin_s` later, which leaves time to pull the image.
    """

    poll_s: float = 5.0
    reconcile_s: float = 60.0
    outage_s: float = 900.0
    margin_s: float = 1_800.0


@dataclass(frozen=True)
class LaunchOrder:
    """What is decided at launch time; the paths, on this machine, are only remembered."""

    run_id: str
    report: ReportTarget | None = None
    log_path: str | None = None
    output_path: str | None = None
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True)
class Launched:
    """A pod that runs, or is about to run, the script; `is_adopted` when it was there already.

    At `deadline_unix_s` it must be gone, for want of what `limit` says.
    """

    run_id: str
    pod_id: str
    provider: Provider
    is_adopted: bool
    cost_usd_per_h: float | None
    deadline_unix_s: float
    limit: DeadlineLimit


def launch(
    cleared: Cleared, *, client: PodClient, store: LaunchLedger, order: LaunchOrder
) -> Launched:
    """Return the one pod of this run id, made now or found.

    Raises OverLimit before anything is written or sent; NoCapacity when every fallback is out of
    stock, or OverBudget when none keeps pod.max_usd; ProviderUnavailable when a pod may have been
    made but did not show up, in which case the launch stays open, for `launch` to adopt the pod;
    LaunchFailed when the run id is spent or belongs to another script, and for a run on
    several nodes.
    """
    spec = cleared.script.run.pod
    if spec.node_count > 1:
        what = f"{spec.node_count} nodes are a cluster, which podproof does not rent"
        raise LaunchFailed(Problem("pod.node_count", what, _CLUSTER_WAY_OUT))
    requests = pod_requests(cleared.script, order)
    record = _intended(cleared.script, store, order)
    if record.pod_id is not None:
        pod_id, is_adopted = _known_pod(record, record.pod_id, client=client, store=store), True
    else:
        pod_id, is_adopted = _adopt_or_create(requests, spec, order, client=client, store=store)
    store.record_pod(order.run_id, pod_id, None)
    pod_id, cost_usd_per_h = _only_pod(
        order.run_id, pod_id, client=client, store=store, provider=spec.provider
    )
    allowance = outer_allowance(spec, cost_usd_per_h, order.patience.margin_s)
    return Launched(
        run_id=order.run_id,
        pod_id=pod_id,
        provider=spec.provider,
        is_adopted=is_adopted,
        cost_usd_per_h=cost_usd_per_h,
        deadline_unix_s=record.intended_unix_s + allowance.seconds,
        limit=allowance.limit,
    )


def pod_requests(script: PodScript, order: LaunchOrder) -> tuple[PodRequest, ...]:
    """Return the pods that would do, in order of preference: every GPU, in every data center.

    A local pod is this machine, with what it has. Raises OverLimit.
    """
    boot_source = files("podproof.runtime").joinpath("boot.py").read_text(encoding="utf-8")
    parcel = wrap(script, run_id=order.run_id, report=order.report, boot_source=boot_source)
    spec = script.run.pod
    request = PodRequest(
        name=order.run_id,
        image=spec.image,
        gpu=None,
        gpu_count=spec.gpu_count,
        cloud=spec.cloud,
        data_center=None,
        cuda_versions=spec.cuda_versions,
        container_disk_gb=spec.container_disk_gb,
        # A pod has one volume: a network volume takes the place of its own.
        volume_gb=0 if spec.network_volume else spec.volume_gb,
        network_volume=spec.network_volume,
        start_command=parcel.start_command,
        env=parcel.env,
    )
    if spec.provider is Provider.LOCAL:
        return (replace(request, network_volume=LOCAL_VOLUME, volume_gb=0),)
    return tuple(
        replace(request, gpu=gpu, data_center=data_center)
        for gpu in spec.gpu or (None,)
        for data_center in spec.data_centers or (None,)
    )


def _intended(script: PodScript, store: LaunchLedger, order: LaunchOrder) -> LaunchRecord:
    """Write the intent down; return what stands, which an earlier launch may have written."""
    record = store.intend_launch(_new_record(script, order))
    if record.script_sha256 != script.sha256:
        what = f"{order.run_id} was launched with another script"
        raise LaunchFailed(Problem("run_id", what, "launch under a new run id"))
    if record.status is LaunchStatus.ENDED:
        what = f"{order.run_id} has ended: {record.reason}"
        raise LaunchFailed(Problem("run_id", what, "launch under a new run id"))
    return record


def _new_record(script: PodScript, order: LaunchOrder) -> LaunchRecord:
    return LaunchRecord(
        run_id=order.run_id,
        name=script.run.plan.name,
        provider=script.run.pod.provider,
        status=LaunchStatus.INTENDED,
        pod_id=None,
        script_sha256=script.sha256,
        config_sha256=script.run.plan.config_sha256,
        intended_unix_s=time.time(),
        log_path=order.log_path,
        output_path=order.output_path,
    )


def _known_pod(record: LaunchRecord, pod_id: str, *, client: PodClient, store: LaunchLedger) -> str:
    """Return the pod that is written down, if it still is; a second one is never made."""
    # Once more: a pod can be missing from one answer and be there in the next.
    if client.find(pod_id) or client.find(pod_id):
        return pod_id
    store.end_launch(record.run_id, "the pod is gone")
    what = f"the pod {pod_id} of {record.run_id} is gone"
    raise LaunchFailed(Problem("run_id", what, "launch under a new run id"))


def _adopt_or_create(
    requests: tuple[PodRequest, ...],
    spec: PodSpec,
    order: LaunchOrder,
    *,
    client: PodClient,
    store: LaunchLedger,
) -> tuple[str, bool]:
    """Return the id of the pod of this name, and whether it was there already."""
    refusals: list[Problem] = []
    is_capacity_wanting = False
    for request in requests:
        pods = named(client.list_pods(), order.run_id)
        if pods:
            return pods[0].pod_id, True
        try:
            return client.create(affordable(request, spec, client)), False
        except (NoCapacity, OverBudget) as error:
            is_capacity_wanting |= isinstance(error, NoCapacity)
            refusals += [replace(problem, where=_place(request)) for problem in error.problems]
        except ProviderUnavailable:
            pod = _late_pod(order, client)
            if pod is None:
                raise
            return pod.pod_id, True
        except LaunchFailed as error:
            store.end_launch(order.run_id, error.error_id)
            raise
    refusal = NoCapacity if is_capacity_wanting else OverBudget
    store.end_launch(order.run_id, refusal.error_id)
    raise refusal(*refusals)


def _late_pod(order: LaunchOrder, client: PodClient) -> PodState | None:
    """Look for the pod that a failed request may have made, until it shows or patience ends."""
    end_monotonic_s = time.monotonic() + order.patience.reconcile_s
    while True:
        try:
            pods = named(client.list_pods(), order.run_id)
        except ProviderUnavailable:
            pods = ()
        if pods:
            return pods[0]
        if time.monotonic() >= end_monotonic_s:
            return None
        time.sleep(order.patience.poll_s)


def _price(pod: PodState, provider: Provider) -> float | None:
    # The emulator names a price, as RunPod would; this machine costs nothing that we know of.
    return None if provider is Provider.LOCAL else pod.cost_usd_per_h


def _only_pod(
    run_id: str, pod_id: str, *, client: PodClient, store: LaunchLedger, provider: Provider
) -> tuple[str, float | None]:
    """Leave one pod of this name, write its price down, and return its id and price.

    Two launches at the same moment may have made two; both keep the one with the lowest id.
    """
    pods: tuple[PodState, ...] = ()
    with suppress(ProviderUnavailable):  # the pod is written down; its price can wait
        pods = named(client.list_pods(), run_id)
        pods = pods or tuple(filter(None, [client.find(pod_id)]))
    if not pods:
        return pod_id, None
    kept = pods[0]
    store.record_pod(run_id, kept.pod_id, _price(kept, provider))
    for pod in pods[1:]:
        client.terminate(pod.pod_id)
    return kept.pod_id, _price(kept, provider)


def _place(request: PodRequest) -> str:
    where = (request.gpu, request.cloud.value, request.data_center)
    return "pod " + " ".join(part for part in where if part)
