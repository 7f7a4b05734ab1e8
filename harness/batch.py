"""Many experiments at once: one process for each core, and none of them left when it is over.

Workers are forked from a process that has imported everything, so a batch imports once. Told to
stop they end what they started; they also do so when their parent is gone, however it went.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from podproof.compiler.places import shown_path
from podproof.harness.experiments import Experiment, Order
from podproof.harness.judgement import Judgement
from podproof.harness.verdict import GateVerdict, Level, Outcome
from podproof.runtime.errors import Problem

_OnDone = Callable[[Judgement], object]

_EXIT_STOPPED = 128 + signal.SIGTERM
_SECONDS_TO_END = 10.0
_BUSY = threading.Event()


class _Stopped(BaseException):
    """Raised where a worker is told to stop; what it started ends on the way out."""


def judge_all(
    experiments: Sequence[Experiment], order: Order, *, jobs: int, on_done: _OnDone = str
) -> tuple[Judgement, ...]:
    """Ask the gates about each experiment, `jobs` at a time, and return what they said, in order.

    `on_done` is told each judgement as it comes, in whatever order. An experiment whose process
    dies, for want of memory say, is refused, and that one only. When interrupted, every worker is
    ended, with what it started, before the interruption goes on.
    """
    workers = min(jobs, len(experiments))
    if workers <= 1:
        return tuple(_told(_answered(order, item), on_done) for item in experiments)
    done: dict[Experiment, Judgement] = {}
    try:
        with _pool(workers) as pool:
            # All at once: the workers are forked here, before a display starts its thread.
            futures = {pool.submit(_judge, order, item): item for item in experiments}
            for future in as_completed(futures):
                done[futures[future]] = _told(future.result(), on_done)
    except BrokenProcessPool:
        for item in experiments:
            if item not in done:
                done[item] = _told(_judge_alone(item, order), on_done)
    return tuple(done[item] for item in experiments)


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _told(item: Judgement, on_done: _OnDone) -> Judgement:
    on_done(item)
    return item


def _judge_alone(experiment: Experiment, order: Order) -> Judgement:
    """Ask in a process of its own, so that the one whose process dies is known."""
    try:
        with _pool(1) as pool:
            future: Future[Judgement] = pool.submit(_judge, order, experiment)
            return future.result()
    except BrokenProcessPool:
        what = "the process that asked the gates died before it could answer"
        return _unjudged(experiment, what, "see whether memory ran out; try --jobs 1")


def _unjudged(experiment: Experiment, what: str, way_out: str) -> Judgement:
    """Return the refusal of an experiment that nobody could judge; the others go on."""
    problem = Problem(experiment.name, what, way_out)
    verdict = GateVerdict("config", Level.STATIC, Outcome.REFUSED, "not judged", (problem,), 0.0)
    file = shown_path(experiment.file)
    return Judgement(experiment.name, file, None, None, is_cleared=False, verdicts=(verdict,))


def _answered(order: Order, experiment: Experiment) -> Judgement:
    """Judge one experiment; whatever it breaks, it is refused, and that one only."""
    try:
        return order.judge(experiment)
    except (Exception, SystemExit, GeneratorExit) as error:
        what = f"podproof could not judge it: {type(error).__name__}: {error}"
        return _unjudged(
            experiment, what, "simplify it; a fault of podproof's own: please report it"
        )


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    # Elsewhere forking is not safe, or there is none; a worker then imports everything itself.
    method = "fork" if sys.platform == "linux" else "spawn"
    if method == "fork":
        importlib.import_module("podproof.harness.proofs")
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_become_worker)
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        _end([child for child in multiprocessing.active_children() if child not in others])
        raise


def _end(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(_SECONDS_TO_END)
        if worker.is_alive():
            worker.kill()
            worker.join()


def _become_worker() -> None:
    # Ctrl-C reaches every process of the terminal; the parent hears it, and tells us to stop. A
    # handler, since an ignored signal would stay ignored in every process below.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_stop_with_parent, daemon=True).start()


def _stop(*_: object) -> None:
    if not _BUSY.is_set():
        os._exit(_EXIT_STOPPED)
    raise _Stopped


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _judge(order: Order, experiment: Experiment) -> Judgement:
    _BUSY.set()
    try:
        return _answered(order, experiment)
    except _Stopped:
        os._exit(_EXIT_STOPPED)
    finally:
        _BUSY.clear()
