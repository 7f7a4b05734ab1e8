"""Every error podproof raises on purpose, with what is wrong, where, and the way out.

The tree, with exit codes (each class has an entry in docs/reference/errors.md):

    PodproofError                  1
    ├── BadPlan                    2   runtime: the plan in the script cannot be read
    ├── BadData                    3   runtime: rows that cannot be trained on
    ├── NoUsableCheckpoint         4   runtime: nothing on disk can be delivered
    ├── OutOfMemory                5   runtime: the smallest batch does not fit into memory
    ├── DiskFull                   5   runtime: a checkpoint cannot be written
    ├── NotPublished               7   runtime: delivered on the volume, but not on the hub
    ├── BadConfig                  2   compiler: the config breaks a rule
    ├── NotBundleable              1   compiler: runtime/ cannot become one file
    ├── BadScript                  2   compiler: a pod script file that is not one of ours
    ├── BadStream                  2   harness: no stream of events that could be played
    ├── UnknownRun                 2   monitor: no such run in the store
    ├── StoreUnavailable           1   monitor: the store cannot be opened or written
    ├── BadHistory                 2   monitor: no record of a run that could be scored again
    ├── PlotUnavailable            1   monitor: a plot cannot be drawn or written
    └── LaunchFailed               1   launcher: no pod, and nothing left behind
        ├── NoCapacity             1   every fallback was out of stock
        ├── OverBudget             1   no GPU that could be had keeps pod.max_usd
        ├── AuthenticationFailed   1   the provider refuses our key, or none is set
        ├── OverLimit              1   the request breaks a limit of the provider
        └── ProviderUnavailable    1   the provider did not answer in time
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong: the key or place, what is the matter, and the way out.

    >>> print(Problem("method.beta", "dpo needs beta > 0, got 0.0", "set method.beta=0.1"))
    method.beta: dpo needs beta > 0, got 0.0
      way out: set method.beta=0.1
    """

    where: str
    what: str
    way_out: str = ""

    def __str__(self) -> str:
        tail = f"\n  way out: {self.way_out}" if self.way_out else ""
        return f"{self.where}: {self.what}{tail}"


class PodproofError(Exception):
    """The root of all errors podproof raises on purpose; carries every problem found at once."""

    error_id: ClassVar[str] = "podproof-error"
    exit_code: ClassVar[int] = 1

    def __init__(self, *problems: Problem | str) -> None:
        """Take the problems found; a bare string becomes a problem without a place."""
        self.problems: Sequence[Problem] = tuple(
            problem if isinstance(problem, Problem) else Problem(self.error_id, problem)
            for problem in problems
        )
        super().__init__("\n".join(str(problem) for problem in self.problems))


class BadPlan(PodproofError):
    """The plan inside the script cannot be read."""

    error_id = "bad-plan"
    exit_code = 2


class BadData(PodproofError):
    """The data cannot be trained on: missing, empty, broken, or of the wrong shape."""

    error_id = "bad-data"
    exit_code = 3


class NoUsableCheckpoint(PodproofError):
    """No checkpoint on disk can be delivered."""

    error_id = "no-usable-checkpoint"
    exit_code = 4


class OutOfMemory(PodproofError):
    """No batch that the plan allows fits into the memory of the device."""

    error_id = "out-of-memory"
    exit_code = 5


class DiskFull(PodproofError):
    """The disk, or a quota on it, has no room for what the run has to write."""

    error_id = "disk-full"
    exit_code = 5


class NotPublished(PodproofError):
    """The weights are delivered on the volume, but did not get to the hub."""

    error_id = "not-published"
    exit_code = 7
