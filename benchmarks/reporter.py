"""What reporting costs a training, whatever the collector does.

    .venv/bin/python benchmarks/reporter.py

A stand-in for training does the same steps without a reporter and with one, against collectors
that answer, that are not there, and that misbehave, each in a process of its own. Both kinds of
training are taken in turns, and what counts is the median of the ratios of neighbours: of wall
time, and of the CPU time of all threads together. A step is half Python, half work that lets other
threads run, as torch's kernels do; each reports one train log, every tenth an evaluation. The
budget is a ratio of 1.02, and 20 microseconds for a hook, of which `report` is a part.
"""

import contextlib
import hashlib
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from podproof.runtime.courier import ReportEndpoint
from podproof.runtime.events import EventKind
from podproof.runtime.reporter import Reporter, ReportSource

ROUNDS = 15
STEPS = 100
WEIGHTS = bytes(2_000_000)
# What a training is held up by at its end is no matter here.
CLOSE_S = 0.2
LOGS = {"loss": 1.25, "grad_norm": 0.5, "learning_rate": 2e-5, "epoch": 0.5}

Report = Callable[[int], None]


def step() -> None:
    """Do what one training step does: some Python, some work that releases the interpreter."""
    hashlib.sha256(WEIGHTS).digest()
    sum(number * number for number in range(40_000))


def training_seconds(report: Report) -> tuple[float, float]:
    """Return the wall and the CPU time of a training that reports every step."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    for number in range(STEPS):
        step()
        report(number)
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


@contextmanager
def answering(status: int, body: bytes, pause_s: float = 0.0) -> Iterator[str]:
    """Serve a collector that gives every post the same answer, so long after each byte of it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Retry-After", "1")
            self.end_headers()
            with contextlib.suppress(OSError):  # who asked has gone
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    time.sleep(pause_s)

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        process = multiprocessing.get_context("fork").Process(target=server.serve_forever)
        process.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            process.terminate()
            process.join()


@contextmanager
def half_open() -> Iterator[str]:
    """Accept connections, in the kernel's queue, and never say a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def nobody() -> Iterator[str]:
    """Give an address where nothing listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


COLLECTORS: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "a collector that answers": lambda: answering(200, b'{"accepted": 1}'),
    "one that drips its answer": lambda: answering(200, b'{"accepted": 1}', pause_s=0.5),
    "nobody there": nobody,
    "half-open": half_open,
    "500": lambda: answering(500, b"boom"),
    "401": lambda: answering(401, b"{}"),
    "429 with Retry-After": lambda: answering(429, b"slow down"),
    "a login page": lambda: answering(200, b"<html>please log in</html>"),
}


@contextmanager
def reporting(url: str | None) -> Iterator[Report]:
    """Run a reporter over a folder of its own; it is not waited for at the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        endpoint = None if url is None else ReportEndpoint(url, "token", timeout_s=2.0)
        reporter = Reporter(Path(folder), ReportSource("run-a", 1), endpoint=endpoint)

        def report(number: int) -> None:
            reporter.report(EventKind.TRAIN_LOG, step=number, epoch=0.5, body=LOGS)
            if number % 10 == 0:
                reporter.report(EventKind.EVALUATION, step=number, epoch=0.5, body=LOGS)

        yield report
        reporter.close(CLOSE_S)


def median_ratios(url: str | None) -> tuple[float, float]:
    """Return the wall and the CPU time with a reporter over those without, medians of pairs."""
    walls, cpus = [], []
    for _ in range(ROUNDS):
        wall_s, cpu_s = training_seconds(lambda _: None)
        with reporting(url) as report:
            reporting_wall_s, reporting_cpu_s = training_seconds(report)
        walls.append(reporting_wall_s / wall_s)
        cpus.append(reporting_cpu_s / cpu_s)
    return statistics.median(walls), statistics.median(cpus)


def call_microseconds(kind: EventKind, calls: int) -> tuple[float, float]:
    """Return the median and the 99th percentile of one call of `report`, the thread at work."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        reporter = Reporter(Path(folder), ReportSource("run-a", 1))
        for number in range(calls):
            started = time.perf_counter()
            reporter.report(kind, step=number, epoch=0.5, body=LOGS)
            times.append((time.perf_counter() - started) * 1e6)
        reporter.close(10.0)
    times.sort()
    return statistics.median(times), times[int(0.99 * calls)]


def main() -> None:
    """Print the cost of a call, and a ratio for each collector."""
    for kind in (EventKind.TRAIN_LOG, EventKind.EVALUATION):
        median, late = call_microseconds(kind, 5_000)
        print(f"report({kind.value:<10})  median {median:5.1f} us   99 % within {late:5.1f} us")
    print(f"{'':<26} wall ratio   CPU ratio")
    show("file only", None)
    for name, serve in COLLECTORS.items():
        with serve() as url:
            show(name, url)


def show(name: str, url: str | None) -> None:
    """Print one line of the table."""
    wall, cpu = median_ratios(url)
    print(f"{name:<26}      {wall:.3f}       {cpu:.3f}")


if __name__ == "__main__":
    main()
