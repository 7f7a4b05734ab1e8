"""The warm process itself: `python -m podproof.harness.warm_process SOCKET`.

It loads the libraries and then only forks, so that it stays as it is after loading. Whoever
connects sends one order as a line of JSON and gets one line back when the job is over; whoever
hangs up before has it ended.
"""

import contextlib
import faulthandler
import json
import os
import select
import signal
import socketserver
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from podproof.harness.real_training import JOBS, load_libraries

SAID_FILE = "said.txt"
RESULT_FILE = "result.json"
MEMORY_BYTES = 8 << 30
LINES_KEPT = 40

_LOOK_S = 0.02
# Worker processes of a data loader end a moment after the one that started them.
_GRACE_S = 2.0
_LAST_WORDS_S = 0.3
_PR_SET_CHILD_SUBREAPER = 36


class _Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """One child for each connection, so many at a time as there are cores."""

    started_by = os.getppid()
    serves_as = os.getpid()
    max_children = os.cpu_count() or 1
    models = Path()

    def service_actions(self) -> None:
        super().service_actions()
        if os.getppid() != self.started_by:
            os._exit(1)


class _Handler(socketserver.StreamRequestHandler):
    """In a process of its own: start the job, watch over it, say how it ended."""

    def handle(self) -> None:
        order = json.loads(self.rfile.readline())
        folder = Path(order["folder"])
        _adopt_orphans()
        pid = os.fork()
        if pid == 0:
            _be_the_job(order["job"], folder)
        status, is_late = self._watched(pid, time.monotonic() + order["limit_s"])
        reply = {
            "code": os.waitstatus_to_exitcode(status),
            "said": _last_lines(folder / SAID_FILE),
            "result": _result(folder / RESULT_FILE),
            "is_late": is_late,
            "left_running": _end_group(pid),
        }
        self.wfile.write(json.dumps(reply).encode() + b"\n")

    def _watched(self, pid: int, end_s: float) -> tuple[int, bool]:
        """Wait for the job; end it at the time limit, or when nobody listens any more."""
        is_late = False
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return status, is_late
            if not is_late and time.monotonic() > end_s:
                is_late = True
                _tell_where_it_stands(pid)
                _end(pid)
            is_unheard = bool(select.select([self.connection], [], [], _LOOK_S)[0])
            if is_unheard or os.getppid() != _Server.serves_as:
                _end(pid)
                _end_group(os.waitpid(pid, 0)[0])
                os._exit(1)


def _be_the_job(name: str, folder: Path) -> None:
    """Become the process of one job; never return."""
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        _speak_into(folder / SAID_FILE)
        faulthandler.register(signal.SIGUSR1, all_threads=False)
        _limit_memory()
        os.chdir(folder)
        code, result = JOBS[name](folder, _Server.models)
        (folder / RESULT_FILE).write_text(json.dumps(result), encoding="utf-8")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _speak_into(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _limit_memory() -> None:
    """Bound what a job may allocate, so that it fails alone where it would take the machine."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _adopt_orphans() -> None:
    """Become the parent of whatever a job leaves behind, where the system can (Linux)."""
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _tell_where_it_stands(pid: int) -> None:
    os.kill(pid, signal.SIGUSR1)
    time.sleep(_LAST_WORDS_S)


def _end(pid: int) -> None:
    # A job that has not come to its own session yet is ended by its own number.
    for end, number in ((os.killpg, pid), (os.kill, pid)):
        try:
            end(number, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _end_group(group: int) -> bool:
    """Tell whether processes of an ended job are left after a moment, and end them."""
    end_s = time.monotonic() + _GRACE_S
    while time.monotonic() < end_s:
        # An orphan of the group that became ours would stay in it, ended but not buried.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-group, os.WNOHANG)
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(_LOOK_S)
    os.killpg(group, signal.SIGKILL)
    return True


def _last_lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return text.splitlines()[-LINES_KEPT:]


def _result(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _serve(address: str) -> None:
    load_libraries()
    _Server.models = Path(address).with_name("models")
    with _Server(address, _Handler) as server:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    _serve(sys.argv[1])
