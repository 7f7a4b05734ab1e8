"""Several processes, one run: every rank decides the same, and only the first one speaks.

The first rank looks at the disk and writes to it, reports and delivers; the others train with it.
What they settle between them while the trainer runs is in agreement.py, and how they are started,
and what becomes of their exit codes, in starter.py.
"""

import atexit
import ctypes
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from podproof.runtime.agreement import Agreement
from podproof.runtime.alone import Alone
from podproof.runtime.callback import StopRequest
from podproof.runtime.errors import BadPlan, Problem
from podproof.runtime.events import EventKind
from podproof.runtime.libraries import prepare_training_libraries
from podproof.runtime.plan import Plan
from podproof.runtime.recovery import remembered_sizes
from podproof.runtime.reporter import Reporter
from podproof.runtime.starter import ENDINGS_VARIABLE, leave_ending, start_ranks
from podproof.runtime.trainers import as_trainer_callback

_Agreed = TypeVar("_Agreed")

_RANK_PREEMPTED = 143
_RANK_LET_SPEAK_S = 60.0
_RANK_FOLDER_S = 30.0
_RANK_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class SilentReporter(Reporter):
    """The reporter of every rank but the first: it takes events and keeps them to itself."""

    def __init__(self) -> None:
        """Start nothing."""

    def report(
        self,
        kind: EventKind,
        *,
        step: int | None = None,
        epoch: float | None = None,
        body: Mapping[str, Any],
    ) -> None:
        """Say nothing."""

    def write(self, timeout_s: float) -> None:
        """Write nothing."""

    def close(self, timeout_s: float) -> bool:  # noqa: ARG002 - the signature of Reporter
        """Return at once."""
        return True


class Rank(Alone):
    """One of the processes of a run on several GPUs, or the one that starts them.

    A launcher names each process that it starts by LOCAL_RANK and RANK; where these are not set,
    this is the starter. `heard` is what this rank's signal handlers write to, `stop` what all ranks
    have agreed on.
    """

    def __init__(self, plan: Plan, output: Path) -> None:
        """Raise BadPlan for a rank among more or fewer processes than planned."""
        self._is_starter = "LOCAL_RANK" not in os.environ
        super().__init__(plan, output)
        self.stop = StopRequest()
        self.rank = 0 if self._is_starter else int(os.environ["RANK"])
        self.is_first = self.rank == 0
        self._group: Any = None
        self._sizes = remembered_sizes(plan, output)
        self._has_left = False

    def start_all(self) -> int | None:
        """Start the ranks and return the run's exit code, or None on one of the ranks."""
        if self._is_starter:
            return start_ranks(self.plan, self.output)
        if ENDINGS_VARIABLE in os.environ:
            _end_with_starter()
        if not self.is_first:
            # Errors still go to standard error, from every rank.
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as we live
        return None

    def reporter(self, make: Callable[[], Reporter]) -> Reporter:
        """Return a reporter that reports on the first rank only."""
        return make() if self.is_first else SilentReporter()

    def begin(self) -> None:
        """Raise BadPlan when this machine has GPUs, but not one for each of its ranks.

        Without any, the ranks train on the CPU.
        """
        prepare_training_libraries()
        import torch

        there = torch.cuda.device_count()
        if 0 < there < self.plan.gpu_count:
            what = f"{self.plan.gpu_count} planned, {there} visible on this machine"
            raise BadPlan(Problem("pod.gpu_count", what, "compile with as many as there are"))

    def join(self, trainer: Any) -> None:
        """Make the ranks' own group, and have the trainer ask it at every step."""
        import torch.distributed as dist

        self._group = dist.new_group(backend="gloo", timeout=trainer.args.ddp_timeout_delta)
        # The last callback: what the others want is known only after them.
        agreement = Agreement(self._group, self.heard, self.stop)
        trainer.add_callback(as_trainer_callback(agreement))
        if self.plan.node_count > 1:
            self._require_shared_folder()

    def decide(self, decision: Callable[[], _Agreed]) -> _Agreed:
        """Return what the first rank decides; the others wait for it."""
        import torch.distributed as dist

        answer: list[Any] = [decision() if self.is_first else None]
        dist.broadcast_object_list(answer, src=0, group=self._group)
        agreed: _Agreed = answer[0]
        return agreed

    def leave(self) -> None:
        """Wait until every rank has trained to the same end; the first one may then take its time.

        The others exit, so nothing of the trainer that speaks to them works after this.
        """
        import torch.distributed as dist

        self.heard.is_awaited = False
        if self.heard.reason is not None and self.stop.reason is None:
            # Too late to be agreed on, and there is no step left to save.
            raise KeyboardInterrupt
        dist.barrier(self._group)
        self._has_left = True

    def new_start(self) -> str | None:
        """Return why all ranks are started again after this failure; None when they are not.

        A rank that ran out of memory has written down smaller batches, which the starter finds.
        """
        sizes = remembered_sizes(self.plan, self.output)
        if sizes is None or sizes == self._sizes or ENDINGS_VARIABLE not in os.environ:
            return None
        return f"all ranks start again after one ran out of memory: {sizes.describe()}"

    def ended(self, code: int) -> int:
        """Leave this rank's exit code for the starter, and exit here and now.

        Not by way of destructors: after a failure those of NCCL wait for ranks that wait for this
        one, and in torch 2.13 that of a gloo group can wait for a thread that waits for the GIL.
        """
        endings = os.environ.get(ENDINGS_VARIABLE)
        if endings is not None:
            if 1 < code < _RANK_PREEMPTED:
                self._let_first_speak(Path(endings))
            leave_ending(Path(endings), self.rank, code)
            code = 0 if code == _RANK_PREEMPTED and self._has_left else code
        if code == 0:
            atexit._run_exitfuncs()  # noqa: SLF001 - a tracker such as W&B finishes its run there
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _let_first_speak(self, endings: Path) -> None:
        """Wait for the first rank: it will meet the same error, and must live to report it."""
        until_s = time.monotonic() + _RANK_LET_SPEAK_S
        while not (self.is_first or (endings / "0").exists() or time.monotonic() > until_s):
            time.sleep(0.1)

    def _require_shared_folder(self) -> None:
        """Raise BadPlan, on all ranks, unless all see the same output folder."""
        import torch
        import torch.distributed as dist

        token = self.output / "ranks" / self.decide(self._leave_token)
        until_s = time.monotonic() + _RANK_FOLDER_S
        while not token.exists() and time.monotonic() < until_s:
            time.sleep(0.1)
        is_shared = torch.tensor([int(token.exists())])
        dist.all_reduce(is_shared, dist.ReduceOp.MIN, self._group)
        if self.is_first:
            token.unlink()
        if not is_shared.item():
            what = "is not one folder that all nodes share, where checkpoints must lie"
            raise BadPlan(Problem("PODPROOF_OUTPUT", what, "put it on a network volume"))

    def _leave_token(self) -> str:
        # Before any rank looks for it: NFS remembers for a while what was not there.
        token = self.output / "ranks" / secrets.token_hex(8)
        token.parent.mkdir(exist_ok=True)
        token.touch()
        return token.name

    def _require_its_plan(self) -> None:
        planned, there = self.plan.gpu_count * self.plan.node_count, os.environ.get("WORLD_SIZE")
        if not self._is_starter and there != str(planned):
            what = f"the plan is for {planned} processes, and a launcher started {there}"
            raise BadPlan(Problem("WORLD_SIZE", what, "start this script by itself, with python"))


def _end_with_starter() -> None:
    """Have the kernel kill this rank as soon as its starter is gone, for nobody else would.

    Linux only: elsewhere ranks whose starter was killed must be ended by hand.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_RANK_PR_SET_PDEATHSIG, int(signal.SIGKILL))
