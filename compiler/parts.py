"""The parts of the runtime that only some plans need, and which of them a plan asks for.

A part is an entry of PARTS in runtime/entry.py; the bundler cuts the others away, so that a run
pays for its own features only, in bytes to send and in lines to read.
"""

from collections.abc import Callable, Mapping

from podproof.runtime.plan import Plan, PublishTo

WANTED: Mapping[str, Callable[[Plan], bool]] = {
    "hub": lambda plan: plan.publish.to is PublishTo.HUB,
    "ranks": lambda plan: plan.gpu_count * plan.node_count > 1,
    "predictions": lambda plan: plan.predictions.enabled,
}


def parts_of(plan: Plan) -> frozenset[str]:
    """Return the names of the parts that this plan asks for."""
    return frozenset(name for name, is_wanted in WANTED.items() if is_wanted(plan))
