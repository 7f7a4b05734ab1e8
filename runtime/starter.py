"""Start one process for each GPU with torchrun, and make one exit code of theirs.

torchrun ends the others as soon as one process exits with anything but 0, and tells its caller
only that something failed. So each process leaves its own exit code in a folder, and one that
ended by agreement (done, or preempted with a checkpoint saved) exits with 0.
"""

import os
import shutil
import socket
import sys
from collections.abc import Collection, Mapping, MutableMapping
from pathlib import Path

from podproof.runtime.errors import BadPlan, Problem
from podproof.runtime.plan import Plan
from podproof.runtime.recovery import remembered_sizes

ENDINGS_VARIABLE = "PODPROOF_ENDINGS"

# torchrun gives its processes 30 s from SIGTERM to SIGKILL, too few to save a large model. Whoever
# sent SIGTERM kills this process when its own patience ends, and no process outlives this one.
_STARTER_PATIENCE_S = 24 * 3600

_STARTER_STOPPED = 143

# What joins the nodes of a RunPod cluster. eth0 leads outside, and is what NCCL and gloo take.
_STARTER_CLUSTER_INTERFACE = "ens1"


def start_ranks(plan: Plan, output: Path) -> int:
    """Run all processes of this node to their end and return the exit code of the run.

    When they failed since one ran out of memory and wrote down smaller batches, this program starts
    over, in this process. Raise BadPlan when the cluster is not the one that the plan is for.
    """
    nodes = node_arguments(plan, os.environ)
    prepare_environment(os.environ, plan, [name for _, name in socket.if_nameindex()])
    endings = output / "ranks"
    os.environ[ENDINGS_VARIABLE] = str(endings)
    ours = node_ranks(plan, os.environ)
    _forget_endings(endings, ours)
    sizes = remembered_sizes(plan, output)
    is_signalled = _starter_torchrun([*nodes, str(Path(sys.argv[0]).resolve())])
    code = run_code(endings, ours)
    if plan.node_count == 1:
        shutil.rmtree(endings, ignore_errors=True)
    if code == 1 and not is_signalled and remembered_sizes(plan, output) != sizes:
        sys.stdout.flush()
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - our own command line once more
    return code


def node_arguments(plan: Plan, environ: Mapping[str, str]) -> list[str]:
    """Return torchrun's arguments for this node, from the variables of a RunPod cluster.

    Raise BadPlan with every variable that is missing or does not fit the plan.
    """
    processes = f"--nproc-per-node={plan.gpu_count}"
    patience = f"--shutdown-timeout={_STARTER_PATIENCE_S}"
    if plan.node_count == 1:
        return ["--standalone", processes, patience]
    address = environ.get("MASTER_ADDR") or environ.get("PRIMARY_ADDR") or ""
    port = environ.get("MASTER_PORT") or environ.get("PRIMARY_PORT") or ""
    problems = [
        *_number_problems("NODE_RANK", environ.get("NODE_RANK", ""), range(plan.node_count)),
        *_number_problems("MASTER_PORT", port, range(1, 65536)),
    ]
    for name, planned in (("NUM_NODES", plan.node_count), ("NUM_TRAINERS", plan.gpu_count)):
        given = environ.get(name, str(planned))
        problems += _number_problems(name, given, range(planned, planned + 1))
    if not address:
        problems.append(Problem("MASTER_ADDR", "is not set", _STARTER_WAY_OUT))
    if problems:
        raise BadPlan(*problems)
    rank = environ["NODE_RANK"]
    nodes = [f"--nnodes={plan.node_count}", f"--node-rank={rank}"]
    return [*nodes, f"--master-addr={address}", f"--master-port={port}", processes, patience]


_STARTER_WAY_OUT = "a RunPod cluster sets it; elsewhere set it on every node"


def _number_problems(name: str, given: str, allowed: range) -> list[Problem]:
    if given.isdecimal() and int(given) in allowed:
        return []
    wanted = str(allowed[0]) if len(allowed) == 1 else f"from {allowed[0]} to {allowed[-1]}"
    return [Problem(name, f"must be {wanted} for this plan, got {given!r}", _STARTER_WAY_OUT)]


def node_ranks(plan: Plan, environ: Mapping[str, str]) -> range:
    """Return the ranks of this node's processes among all."""
    first = plan.gpu_count * (int(environ["NODE_RANK"]) if plan.node_count > 1 else 0)
    return range(first, first + plan.gpu_count)


def prepare_environment(
    environ: MutableMapping[str, str], plan: Plan, interfaces: Collection[str]
) -> None:
    """Set what each process will find, unless it is set: its share of the cores, its network.

    Left alone torchrun gives each process one thread. Between the nodes of a RunPod cluster both
    NCCL (for the GPUs) and gloo (for what ranks agree on) must be told the interface.
    """
    if plan.node_count == 1 and "lo" in interfaces:
        environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    environ.setdefault("OMP_NUM_THREADS", str(max(1, (cores or 1) // plan.gpu_count)))
    if plan.node_count > 1 and _STARTER_CLUSTER_INTERFACE in interfaces:
        environ.setdefault("NCCL_SOCKET_IFNAME", _STARTER_CLUSTER_INTERFACE)
        environ.setdefault("GLOO_SOCKET_IFNAME", _STARTER_CLUSTER_INTERFACE)


def run_code(endings: Path, ours: range) -> int:
    """Return the exit code of a run from what its processes left, one file each.

    One of `ours`, this node's, that left none was killed, and counts as failed (1); one of another
    node may be at work still, as the first is while it delivers. When one fails, those that
    waited for it fail too, with 1, and torchrun stops those that did not; so the cause is the first
    there is of these: what a restart cannot mend (2 to 7), a stop (143), any failure (1), none (0).
    """
    left = {int(path.name) for path in endings.iterdir() if path.name.isdecimal()}
    codes = (_ending_code(endings / str(rank)) for rank in left.union(ours))
    return max(codes, key=lambda code: (1 < code < _STARTER_STOPPED, code))


def _ending_code(ending: Path) -> int:
    try:
        return int(ending.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 1


def leave_ending(endings: Path, rank: int, code: int) -> None:
    """Leave a process's exit code, whole or not at all."""
    draft = endings / f"{rank}.tmp"
    draft.write_text(str(code), encoding="ascii")
    draft.replace(endings / str(rank))


def _forget_endings(endings: Path, ranks: range) -> None:
    endings.mkdir(parents=True, exist_ok=True)
    for rank in ranks:
        (endings / str(rank)).unlink(missing_ok=True)


def _starter_torchrun(arguments: list[str]) -> bool:
    """Run torchrun here; return whether a signal ended it. It passes signals on to the ranks."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(arguments))
    except SignalException:
        return True
    except ChildFailedError as failed:
        # Which rank failed first, with what; the traceback stands above, from the rank itself.
        sys.stderr.write(f"{failed}\n")
    return False
