"""The world around the boot program: a collector and a provider, and the program started in it."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import podproof.runtime
from podproof.compiler.limits import pack

BOOT = Path(podproof.runtime.__path__[0]) / "boot.py"
KEY = "pod-key-hunter2"
REPORT_KEY = "report-token-hunter3"


@dataclass(frozen=True)
class Heard:
    """One request: its method, path, Authorization and JSON body."""

    method: str
    path: str
    authorization: str
    body: Any


@dataclass
class World:
    """A collector and a provider on one port; `refuses` names the paths answered with 500."""

    url: str
    heard: list[Heard] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)

    def bodies(self, path: str) -> list[Any]:
        return [request.body for request in self.heard if request.path == path]


@dataclass
class Booted:
    """A running boot program; `volume` is where its run's folder lies."""

    process: subprocess.Popen[str]
    folder: Path

    def end(self) -> str:
        """Tell it to stop, as a provider that ends a pod does; return all it printed."""
        self.process.send_signal(signal.SIGTERM)
        printed, _ = self.process.communicate(timeout=30)
        return printed


def pod_environ(script: str, volume: Path, world: World) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PS_N": "1",
        "PS_SHA": hashlib.sha256(script.encode()).hexdigest(),
        "PS_00": pack(script),
        "PODPROOF_RUN_ID": "run-1",
        "PODPROOF_MAX_SECONDS": "60",
        "PODPROOF_MAX_RESTARTS": "1",
        "PODPROOF_PAUSE_SECONDS": "0.05",
        "PODPROOF_PYTHON": sys.executable,
        "PODPROOF_VOLUME": str(volume),
        "PODPROOF_REPORT_URL": world.url,
        "PODPROOF_REPORT_TOKEN": REPORT_KEY,
        "RUNPOD_POD_ID": "pod-1",
        "RUNPOD_API_KEY": KEY,
        "RUNPOD_API_BASE_URL": world.url,
    }


def wait_until(is_true: Callable[[], bool]) -> None:
    end_monotonic_s = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < end_monotonic_s, "it did not come true"
        time.sleep(0.02)


def asked_for_its_end(world: World) -> Callable[[], bool]:
    return lambda: bool(world.bodies("/graphql"))


def failures(world: World) -> list[Any]:
    return [event for body in world.bodies("/rpc/ingest_events") for event in body["events"]]
