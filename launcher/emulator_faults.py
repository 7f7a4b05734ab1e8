"""What the emulator does wrong on request: one fault after the other, for each operation."""

import threading
from collections import defaultdict, deque
from enum import StrEnum


class Operation(StrEnum):
    """The operations that can be made to fail: GraphQL's root fields, and REST's routes."""

    MYSELF = "myself"
    POD = "pod"
    GPU_TYPES = "gpuTypes"
    DEPLOY_GPU = "podFindAndDeployOnDemand"
    DEPLOY_CPU = "deployCpuPod"
    STOP = "podStop"
    RESUME = "podResume"
    TERMINATE = "podTerminate"
    REST_LIST = "GET /v2/pods"
    REST_FIND = "GET /v2/pods/{pod_id}"
    REST_TERMINATE = "DELETE /v2/pods/{pod_id}"
    REST_LOGS = "GET /v2/pods/{pod_id}/logs"


class Fault(StrEnum):
    """What can go wrong with one request.

    The `DONE_…` faults do what was asked, and then fail to say so.
    """

    NO_CAPACITY = "no capacity"
    NOTHING_DONE = "an answer of null, and nothing done"
    UNAUTHORIZED = "401"
    RATE_LIMITED = "429, HTML"
    BAD_GATEWAY = "502, HTML"
    LIST_LAG = "no pod in the list yet"
    DONE_THEN_ERROR = "done, then 500"
    DONE_THEN_ERRORS = "done, data and errors"
    DONE_THEN_CUT = "done, then the connection breaks"
    DONE_THEN_SILENCE = "done, then no answer for a long time"


class FaultQueue:
    """The faults to come, first in, first out, for each operation; safe from any thread."""

    def __init__(self) -> None:
        self._faults: defaultdict[Operation, deque[Fault]] = defaultdict(deque)
        self._lock = threading.Lock()

    def add(self, operation: Operation, faults: tuple[Fault, ...]) -> None:
        """Let the next requests of that operation fail, one for each fault."""
        with self._lock:
            self._faults[operation].extend(faults)

    def take(self, operation: Operation) -> Fault | None:
        """Return the fault for the request at hand, or None when it should go well."""
        with self._lock:
            faults = self._faults[operation]
            return faults.popleft() if faults else None
