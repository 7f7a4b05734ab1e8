"""A process that has loaded the training libraries once, and forks every boot from there.

Loading them takes longer than ten tiny trainings. The process stays as it is after loading: no
thread, nothing computed. Whoever connects to its socket sends one order as a line of JSON and gets
one line back when that boot is over.
"""

import faulthandler
import fcntl
import importlib
import io
import json
import os
import runpy
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash.points import Fault, Watch, fault_from_text

ROOT = Path(__file__).parents[2]
LONGEST_BOOT_S = 120.0
TRACE_BYTES = 1 << 20

# One thread computes: forking keeps no other, and the bytes of the weights depend on their number.
CALM_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TQDM_DISABLE": "1",
}


@dataclass(frozen=True)
class Order:
    """One boot: the script, the folder it runs in, its environment, the fault to commit."""

    script: Path
    folder: Path
    environ: Mapping[str, str]
    fault: Fault | None = None
    is_recording: bool = False


@dataclass(frozen=True)
class Boot:
    """How a boot ended: its exit code (below 0: the signal), what it said, what the watch told."""

    code: int
    said: str
    trace: tuple[dict[str, Any], ...]


class ForkServer:
    """Speaks to a server process."""

    def __init__(self, address: str) -> None:
        self._address = address

    def boot(self, order: Order) -> Boot:
        """Run one boot to its end; several threads may do so at once."""
        fields = {
            "script": str(order.script),
            "folder": str(order.folder),
            "environ": dict(order.environ),
            "fault": "" if order.fault is None else str(order.fault),
            "is_recording": order.is_recording,
        }
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self._address)
            with connection.makefile("rw", encoding="utf-8") as stream:
                stream.write(json.dumps(fields) + "\n")
                stream.flush()
                reply = json.loads(stream.readline())
        return Boot(reply["code"], reply["said"], tuple(reply["trace"]))


@contextmanager
def fork_server(folder: Path) -> Iterator[ForkServer]:
    """Start a server for the length of the block; `folder` takes its socket and the caches."""
    address = folder / "server"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.server", str(address)],
        cwd=ROOT,
        env={**os.environ, **CALM_ENVIRONMENT, "HF_HOME": str(folder), "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready == b"ready\n", f"the fork server did not start: {ready!r}"
        yield ForkServer(str(address))
    finally:
        process.terminate()
        process.communicate()


class _Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """One child for each connection; the server ends when whoever started it is gone."""

    started_by = os.getppid()

    def service_actions(self) -> None:
        super().service_actions()
        if os.getppid() != self.started_by:
            os._exit(1)


class _Handler(socketserver.StreamRequestHandler):
    """In a process of its own: start the boot, listen to it, say how it ended."""

    def handle(self) -> None:
        order = json.loads(self.rfile.readline())
        said_out, said_in = os.pipe()
        trace_out, trace_in = os.pipe()
        fcntl.fcntl(trace_in, fcntl.F_SETPIPE_SZ, TRACE_BYTES)  # it is read when all is over
        pid = os.fork()
        if pid == 0:
            os.close(said_out)
            os.close(trace_out)
            _be_the_boot(order, said_in, trace_in)
        os.close(said_in)
        os.close(trace_in)
        limit = threading.Timer(LONGEST_BOOT_S, _end_late, (pid,))
        limit.start()
        said = _all_of(said_out).decode(errors="replace")
        _, status = os.waitpid(pid, 0)
        is_late = not limit.is_alive()
        limit.cancel()
        trace = [json.loads(line) for line in _all_of(trace_out).splitlines()]
        if is_late:
            trace.append({"late": LONGEST_BOOT_S})
        reply = {"code": os.waitstatus_to_exitcode(status), "said": said, "trace": trace}
        self.wfile.write(json.dumps(reply).encode() + b"\n")


def _end_late(pid: int) -> None:
    """Have a boot that hangs print where each of its threads stands, and kill it."""
    os.kill(pid, signal.SIGUSR1)
    time.sleep(1.0)
    os.kill(pid, signal.SIGKILL)


def _all_of(pipe: int) -> bytes:
    with os.fdopen(pipe, "rb") as stream:
        return stream.read()


def _be_the_boot(order: Mapping[str, Any], said: int, trace: int) -> None:
    """Become the script's own process, as far as a fork can; never return."""
    code = 1
    try:
        os.dup2(said, 1)
        os.dup2(said, 2)
        assert isinstance(sys.stdout, io.TextIOWrapper)
        sys.stdout.reconfigure(line_buffering=True)  # a kill must not take what was said
        os.environ.update(order["environ"])
        os.chdir(order["folder"])
        faulthandler.register(signal.SIGUSR1)
        sys.argv = [order["script"]]
        fault = fault_from_text(order["fault"]) if order["fault"] else None
        output = Path(order["environ"]["PODPROOF_OUTPUT"])
        Watch(output, fault, trace, is_recording=order["is_recording"]).install()
        runpy.run_path(order["script"], run_name="__main__")
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _load_libraries() -> None:
    for name in ("torch", "transformers", "datasets", "peft", "trl.experimental.orpo"):
        importlib.import_module(name)
    # These load a class when it is first named.
    transformers, trl = sys.modules["transformers"], sys.modules["trl"]
    for name in ("AutoModelForCausalLM", "LlamaForCausalLM", "PreTrainedTokenizerFast"):
        getattr(transformers, name)
    for name in ("SFTTrainer", "DPOTrainer"):
        getattr(trl, name)


def _serve(address: str) -> None:
    _load_libraries()
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads run after loading; forking would lose some"
    with _Server(address, _Handler) as server:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    _serve(sys.argv[1])
