"""A warm process: it loads the training libraries once, and forks for every order from there.

Loading them takes longer than ten tiny trainings, so scripts that are proven one after another, or
side by side, share one. What an order does, exits or breaks happens in a process of its own.
"""

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from podproof.runtime.errors import Problem

LIMIT_S = 180.0
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")

# What of our own environment finds the libraries and their caches. A proof reports to nobody,
# downloads nothing and uses no GPU, so tokens, ranks and PODPROOF_ variables stay behind.
_PASSED_ON = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONPATH",
    "HF_HOME",
    "HF_HUB_CACHE",
    "SSL_CERT_FILE",
)
# One thread computes: forking keeps no other, and beside other work more would only wait.
_QUIET = {
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "HF_HUB_OFFLINE": "1",
}


class Job(StrEnum):
    """What can be ordered; harness/real_training.py does it."""

    BUILD = "build"
    TRAIN = "train"
    LOAD = "load"


@dataclass(frozen=True)
class Order:
    """One job in a folder of its own, which holds `pod_script.py` and `plan.json`."""

    job: Job
    folder: Path


@dataclass(frozen=True)
class Answer:
    """How a job ended: its exit code (below 0: the signal), the last lines it printed, its result.

    `is_late` says that it was ended at the time limit; then `said` tells where it stood.
    `left_running` says that it left processes behind, which have been ended since.
    """

    code: int
    said: tuple[str, ...]
    result: Mapping[str, Any]
    is_late: bool
    left_running: bool


class NotWarm(Exception):
    """The warm process could not be started, or is gone; carries the problem."""

    def __init__(self, problem: Problem) -> None:
        """Take what was wrong, with the way out."""
        super().__init__(str(problem))
        self.problem = problem


class WarmTrainer:
    """Speaks to one warm process, which the first order starts and `close` ends.

    `limit_s` is how long one job may take, `address` the socket of the process while it runs.

    Threads may share it. A copy pickled to another process, or inherited by a fork, speaks to the
    same warm process and leaves it running: call `start` before making one.
    """

    def __init__(self, *, limit_s: float = LIMIT_S) -> None:
        """Start nothing yet."""
        self.limit_s = limit_s
        self.address = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._folder = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (self.address, self.limit_s)

    @property
    def pid(self) -> int | None:
        """Return the number of the process; None before its start, and of a copy."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the warm process unless it runs; raise NotWarm when it cannot."""
        with self._lock:
            if not self.address:
                self._start()

    def ask(self, order: Order) -> Answer:
        """Have an order done and return how it ended; raise NotWarm when nobody does it.

        Leaving this call early, as Ctrl-C does, ends the job.
        """
        self.start()
        wanted = {"job": order.job, "folder": str(order.folder), "limit_s": self.limit_s}
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(self.address)
                with connection.makefile("rw", encoding="utf-8") as stream:
                    stream.write(json.dumps(wanted) + "\n")
                    stream.flush()
                    reply = json.loads(stream.readline())
        except (OSError, ValueError) as error:
            raise NotWarm(_gone(str(error))) from error
        return Answer(**{**reply, "said": tuple(reply["said"])})

    def close(self) -> None:
        """End the warm process and every job in it; one that was never started is closed too."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.terminate()
            process.communicate()
            self._folder.close()
        self.address = ""

    def _start(self) -> None:
        missing = missing_libraries()
        if missing:
            raise NotWarm(_missing(missing))
        folder = self._folder.enter_context(
            tempfile.TemporaryDirectory(prefix="podproof-", ignore_cleanup_errors=True)
        )
        address = f"{folder}/warm"
        process = subprocess.Popen(
            # -P: what lies in the working directory must not take the place of a library.
            [sys.executable, "-P", "-m", "podproof.harness.warm_process", address],
            env=warm_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Ctrl-C in a terminal reaches a whole group; who ends this process, and when, is ours.
            start_new_session=True,
        )
        self._process, self._owner = process, os.getpid()
        assert process.stdout is not None
        said: list[bytes] = []
        for line in process.stdout:
            if line == b"ready\n":
                self.address = address
                return
            said.append(line)
        raise NotWarm(_gone(b"".join(said).decode(errors="replace").strip()))


def missing_libraries(names: Iterable[str] = LIBRARIES) -> tuple[str, ...]:
    """Return those packages that this Python cannot import, without importing any.

    >>> missing_libraries(("json", "no_such_library"))
    ('no_such_library',)
    """
    return tuple(name for name in names if importlib.util.find_spec(name) is None)


def warm_environment(folder: str) -> dict[str, str]:
    """Return the environment of a warm process whose caches and drafts go into `folder`."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    own = {"TMPDIR": folder, "HF_DATASETS_CACHE": f"{folder}/datasets"}
    return {**passed_on, **_QUIET, **own}


def _attached(address: str, limit_s: float) -> WarmTrainer:
    warm = WarmTrainer(limit_s=limit_s)
    warm.address = address
    return warm


def _missing(names: tuple[str, ...]) -> Problem:
    what = f"level full trains a tiny model here, and {', '.join(names)} cannot be imported"
    return Problem("gates.level", what, "pip install 'podproof[pod]', or set gates=fast")


def _gone(said: str) -> Problem:
    what = f"the process that trains ended by itself: {said[-800:] or 'without a word'}"
    return Problem("gates.level", what, "mend the installed libraries, or set gates=fast")
