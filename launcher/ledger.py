"""What a launch needs remembered; podproof.monitor.store.Store remembers it."""

from typing import Protocol

from podproof.monitor.records import LaunchRecord


class LaunchLedger(Protocol):
    """The book in which a launch is written down before, while and after a pod exists.

    Any method may raise StoreUnavailable, and UnknownRun for a run that was never intended.
    """

    def intend_launch(self, launch: LaunchRecord) -> LaunchRecord:
        """Write down that a pod is about to be made, unless the run has a launch already.

        Return the launch that stands: this one, or the one that was there.
        """
        ...

    def record_pod(self, run_id: str, pod_id: str, cost_usd_per_h: float | None) -> None:
        """Write down the pod; again when its price is known, or another pod is kept instead."""
        ...

    def end_launch(self, run_id: str, reason: str) -> None:
        """Write down that no pod is left, and why; only the first end counts."""
        ...

    def is_stop_requested(self, run_id: str) -> bool:
        """Tell whether somebody asked for the end of this run."""
        ...
