"""How long a pod of a known price can be paid for: pod.max_usd becomes time, like pod.max_hours."""

from dataclasses import dataclass, replace

from podproof.compiler.ir import PodSpec, Provider
from podproof.launcher.client import PodRequest, PriceList
from podproof.launcher.errors import OverBudget
from podproof.runtime.deadline import DeadlineLimit
from podproof.runtime.errors import Problem

# A pod is billed while it pulls its image and while it ends, and its own clock starts in between.
OVERHEAD_S = 300.0
# Less than this is spent on loading a model.
LEAST_RUN_S = 600.0


@dataclass(frozen=True)
class Allowance:
    """How many seconds something may last, and whether max_hours or max_usd says so."""

    seconds: float
    limit: DeadlineLimit


def affordable(request: PodRequest, spec: PodSpec, prices: PriceList) -> PodRequest:
    """Return the request with the time it has in its orders.

    Raises OverBudget when pod.max_usd is set and the price is not known, or so high that nothing
    could be trained. A local pod costs nothing, so pod.max_hours alone limits it.
    """
    if spec.max_usd is None or spec.provider is Provider.LOCAL:
        return request
    usd_per_h = prices.usd_per_h(request)
    if not usd_per_h:
        what = "its price is not told, so pod.max_usd cannot be kept"
        raise OverBudget(
            Problem("pod.max_usd", what, "name another GPU, or set pod.max_hours only")
        )
    paid_s = paid_seconds(spec, usd_per_h)
    if paid_s < OVERHEAD_S + LEAST_RUN_S:
        what = (
            f"at ${usd_per_h * spec.node_count:.2f} an hour pod.max_usd={spec.max_usd:g} pays for "
            f"{paid_s / 60:.0f} minutes, too few to start and train"
        )
        raise OverBudget(Problem("pod.max_usd", what, "raise it, or name a cheaper GPU"))
    own = own_allowance(spec, usd_per_h)
    orders = {"PODPROOF_MAX_SECONDS": f"{own.seconds:.0f}", "PODPROOF_LIMIT": own.limit.value}
    return replace(request, env=tuple((key, orders.get(key, text)) for key, text in request.env))


def own_allowance(spec: PodSpec, usd_per_h: float) -> Allowance:
    """Return how long the pod may run its script by its own clock, which starts with the script."""
    paid = Allowance(paid_seconds(spec, usd_per_h) - OVERHEAD_S, DeadlineLimit.MONEY)
    return min(paid, _by_the_hour(spec), key=lambda allowance: allowance.seconds)


def outer_allowance(spec: PodSpec, usd_per_h: float | None, margin_s: float) -> Allowance:
    """Return how long the pod may be there at all, by the launcher's clock.

    `margin_s` is what a pod out of time gets for pulling its image; money has no margin. Without
    a price, as for a local pod, time alone counts.
    """
    timed = replace(_by_the_hour(spec), seconds=_by_the_hour(spec).seconds + margin_s)
    if spec.max_usd is None or not usd_per_h:
        return timed
    paid = Allowance(paid_seconds(spec, usd_per_h), DeadlineLimit.MONEY)
    return min(paid, timed, key=lambda allowance: allowance.seconds)


def paid_seconds(spec: PodSpec, usd_per_h: float) -> float:
    """Return how long pod.max_usd pays for all pods of the run; infinite without it."""
    if spec.max_usd is None:
        return float("inf")
    return spec.max_usd / (usd_per_h * spec.node_count) * 3600


def _by_the_hour(spec: PodSpec) -> Allowance:
    return Allowance(spec.max_hours * 3600, DeadlineLimit.TIME)
