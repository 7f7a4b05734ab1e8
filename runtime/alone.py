"""What a process has to settle with the others of its run; alone, nothing.

The counterpart for several processes is `Rank` in runtime/distributed.py, a part that only scripts
for more than one GPU carry. `main` asks the same questions of both.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from podproof.runtime.callback import StopRequest
from podproof.runtime.errors import BadPlan, Problem
from podproof.runtime.plan import Plan
from podproof.runtime.reporter import Reporter

_Decided = TypeVar("_Decided")


class Alone:
    """The one process of a run: it is the first, decides by itself, and waits for nobody.

    `heard` is what signal handlers write to, `stop` what the callback obeys; alone they are one.
    """

    is_first = True

    def __init__(self, plan: Plan, output: Path) -> None:
        """Raise BadPlan when a launcher made several processes of a plan for one."""
        self.plan = plan
        self.output = output
        self.stop = self.heard = StopRequest()
        self._require_its_plan()

    def start_all(self) -> int | None:
        """Start the other processes and return the run's exit code; None: this one trains."""
        return None

    def reporter(self, make: Callable[[], Reporter]) -> Reporter:
        """Return the reporter of this process."""
        return make()

    def begin(self) -> None:
        """Look around before anything is loaded; of several GPUs take the first.

        TRL refuses to see several without a launcher, and ORPO would part each batch over them.
        """
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")

    def join(self, trainer: Any) -> None:
        """Meet the other processes, once the trainer is built."""

    def decide(self, decision: Callable[[], _Decided]) -> _Decided:
        """Return what the first process decides; the others do not look for themselves."""
        return decision()

    def leave(self) -> None:
        """Wait until every process has trained to the same end."""

    def new_start(self) -> str | None:
        """Return why a failure is none, as all processes are started again; None if it is one."""
        return None

    def ended(self, code: int) -> int:
        """Say how this process ends, and return what it shall exit with."""
        return code

    def _require_its_plan(self) -> None:
        if "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            what = "a launcher started several processes of a plan for one"
            raise BadPlan(Problem("WORLD_SIZE", what, "compile with pod.gpu_count, or start one"))
