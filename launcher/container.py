"""The supervisor of one local container: starts it, and makes sure that it dies.

`python -m podproof.launcher.container` reads one line of JSON ({argv, env, cwd, grace_s}) from
its standard input and starts that command in a session of its own. From then on the end of the
input is the order to stop, and it comes also when the emulator is killed and can order nothing.
Then, as a container runtime does it, the command itself gets SIGTERM and `grace_s` seconds, and its
whole process group SIGKILL. A process that moves itself to another group escapes, as it would not
from a real container.

The command's output goes to standard output. Standard error tells the emulator what happened, one
line each: `started PID`, `ended CODE`, `refused REASON`.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from typing import IO


def main(orders: IO[str], news: IO[str]) -> int:
    """Run one command until it ends by itself or the orders end; return 1 if it cannot start."""
    spec = json.loads(orders.readline())
    try:
        process = subprocess.Popen(
            spec["argv"],
            env=spec["env"],
            cwd=spec["cwd"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        # Above all E2BIG: a real container runtime meets the same limit of the kernel.
        _tell(news, f"refused {(error.strerror or str(error)).lower()}")
        return 1
    _tell(news, f"started {process.pid}")
    has_ended = threading.Event()
    stopper = (orders, process, spec["grace_s"], has_ended)
    threading.Thread(target=_stop_when_orders_end, args=stopper, daemon=True).start()
    code = process.wait()
    has_ended.set()
    # As when the first process of a container dies: the rest of the group goes with it.
    _kill_group(process.pid)
    _tell(news, f"ended {code}")
    return 0


def _stop_when_orders_end(
    orders: IO[str],
    process: subprocess.Popen[bytes],
    grace_s: float,
    has_ended: threading.Event,
) -> None:
    # Not orders.read(): a thread inside a buffered reader crashes the interpreter when it exits.
    while os.read(orders.fileno(), 1024):
        continue
    process.terminate()
    if not has_ended.wait(grace_s):
        _kill_group(process.pid)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Nobody is left, or (on macOS) only zombies are.
        return


def _tell(news: IO[str], line: str) -> None:
    try:
        news.write(f"{line}\n")
        news.flush()
    except OSError:
        # The emulator is gone, so nobody needs to know; the container must still be ended.
        return


if __name__ == "__main__":
    sys.exit(main(sys.stdin, sys.stderr))
