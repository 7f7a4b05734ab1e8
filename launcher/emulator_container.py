"""A local container: one command under its supervisor, restarted until it is told to stop."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from podproof.launcher.client import LogLine, LogSource


@dataclass(frozen=True)
class ContainerSpec:
    """What to run, where, and how patiently.

    A command that ends is started again after `pause_s`, doubling up to `longest_pause_s`; a
    command told to stop has `grace_s` before it is killed.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    grace_s: float
    pause_s: float
    longest_pause_s: float


def decode_args(docker_args: str) -> tuple[str, ...]:
    """Return the command that RunPod makes of `dockerArgs`; no shell is involved.

    A JSON object names the command outright; other text is split as a shell would split it, or
    at white space where its quotes do not match. Nothing at all means: idle.

    >>> decode_args("bash -c 'echo $A|wc'")
    ('bash', '-c', 'echo $A|wc')
    >>> decode_args('{"entrypoint": ["sh", "-c"], "cmd": ["exit 3"]}')
    ('sh', '-c', 'exit 3')
    """
    command = _command_in_json(docker_args)
    if command is None:
        try:
            command = tuple(shlex.split(docker_args))
        except ValueError:
            command = tuple(docker_args.split())
    return command or ("tail", "-f", "/dev/null")


def _command_in_json(docker_args: str) -> tuple[str, ...] | None:
    try:
        fields = json.loads(docker_args)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    return (*fields.get("entrypoint", ()), *fields.get("cmd", ()))


class ContainerLog:
    """A log file of lines `TIME SOURCE TEXT`, oldest first; safe to write from many threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost_lines = 0
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def write(self, source: LogSource, text: str) -> None:
        """Append one line, stamped with the time of now; on a full disk, count it as lost.

        A log that cannot be written must not keep a container from being ended.
        """
        time_text = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            with self._lock, self.path.open("a", encoding="utf-8") as file:
                file.write(f"{time_text} {source.value} {text}\n")
        except OSError:
            self.lost_lines += 1

    def lines(self) -> tuple[LogLine, ...]:
        """Return every whole line written so far."""
        with self._lock:
            text = self.path.read_bytes().decode()  # not as text: a lone CR is no end of a line
        parts = (line.split(" ", 2) for line in text.split("\n")[:-1])
        return tuple(LogLine(part[0], LogSource(part[1]), part[2]) for part in parts)

    def copy(self, output: IO[bytes]) -> None:
        """Append what a container prints, line by line, until it closes its output."""
        with output:
            for line in output:
                self.write(LogSource.CONTAINER, line.decode("utf-8", "replace").rstrip("\r\n"))


class Container:
    """One pod's container: starts at once, restarts for ever, until `stop`."""

    def __init__(self, spec: ContainerSpec, log: ContainerLog) -> None:
        self.spec = spec
        self.log = log
        self.starts = 0
        self._started_monotonic_s: float | None = None
        self._process_group: int | None = None
        self._lock = threading.Lock()
        self._is_stopping = threading.Event()
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run_again_and_again, daemon=True)
        self._thread.start()

    @property
    def uptime_s(self) -> float | None:
        """Return the seconds since the command last started; None while it does not run."""
        started = self._started_monotonic_s
        return None if started is None else time.monotonic() - started

    def stop(self) -> None:
        """Order the end, and return at once."""
        with self._lock:
            self._is_stopping.set()
            if self._supervisor is not None:
                _close_orders(self._supervisor)

    def join(self) -> None:
        """Wait until nothing of the container runs; only sensible after `stop`."""
        self._thread.join()

    def _run_again_and_again(self) -> None:
        pause_s = self.spec.pause_s
        while not self._is_stopping.is_set():
            try:
                self._run_once()
            except OSError as error:
                # This machine could not start it, for want of memory say; as on a pod, again later.
                self.log.write(LogSource.SYSTEM, f"error starting container: {error}")
            self._is_stopping.wait(pause_s)
            pause_s = min(2 * pause_s, self.spec.longest_pause_s)

    def _run_once(self) -> None:
        with self._lock:
            if self._is_stopping.is_set():
                return
            self._supervisor = supervisor = _start_supervisor(self.spec)
        assert supervisor.stdout is not None
        assert supervisor.stderr is not None
        reader = threading.Thread(target=self.log.copy, args=(supervisor.stdout,), daemon=True)
        reader.start()
        with supervisor.stderr:
            for line in supervisor.stderr:
                self._hear(line.decode().rstrip("\n"), reader)
        supervisor.wait()
        _close_orders(supervisor)
        self._kill_what_is_left()

    def _hear(self, news: str, reader: threading.Thread) -> None:
        word, _, rest = news.partition(" ")
        if word == "started":
            self.starts += 1
            self._process_group = int(rest)
            self._started_monotonic_s = time.monotonic()
        elif word == "ended":
            self._process_group = None
            self._started_monotonic_s = None
            # First what it printed; but a process that left the group may keep the pipe for ever.
            reader.join(1)
            self.log.write(LogSource.SYSTEM, f"the container ended with exit code {rest}")
        elif word == "refused":
            self.log.write(LogSource.SYSTEM, f"error starting container: {rest}")
        else:
            self.log.write(LogSource.SYSTEM, news)

    def _kill_what_is_left(self) -> None:
        """End a group whose supervisor died before it: somebody killed the supervisor."""
        group, self._process_group, self._started_monotonic_s = self._process_group, None, None
        if group is None:
            return
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return


def _start_supervisor(spec: ContainerSpec) -> subprocess.Popen[bytes]:
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "podproof.launcher.container"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A copy: started from a thread, it would read the environment while another changes it.
        env=dict(os.environ),
        start_new_session=True,  # so that Ctrl-C in a terminal reaches the launcher alone
    )
    orders = {
        "argv": spec.argv,
        "env": dict(spec.env),
        "cwd": str(spec.cwd),
        "grace_s": spec.grace_s,
    }
    assert supervisor.stdin is not None
    try:
        supervisor.stdin.write(json.dumps(orders).encode() + b"\n")
        supervisor.stdin.flush()
    except BrokenPipeError:
        # It died before it read its orders; its standard error says why.
        _close_orders(supervisor)
    return supervisor


def _close_orders(supervisor: subprocess.Popen[bytes]) -> None:
    assert supervisor.stdin is not None
    try:
        supervisor.stdin.close()
    except BrokenPipeError:
        # The supervisor is gone already.
        return
