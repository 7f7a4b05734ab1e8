"""Fixtures of the boot program's tests, and runs that others are compared with."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.boot_world import BOOT, Booted, Heard, World, pod_environ
from tests.runtime.pod_process import PodFolder

from podproof.runtime.plan import Plan, plan_to_json

Undisturbed = Callable[[Plan], dict[str, object]]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Return what a run of a plan comes to when nothing happens to it; each plan is run once."""
    results: dict[str, dict[str, object]] = {}

    def result(plan: Plan) -> dict[str, object]:
        key = plan_to_json(plan)
        if key not in results:
            folder = PodFolder(tmp_path_factory.mktemp("undisturbed") / "run", plan)
            assert folder.run() == 0
            results[key] = folder.result()
        return results[key]

    return result


@pytest.fixture
def world() -> Iterator[World]:
    there = World(url="")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"null")
            authorization = self.headers.get("Authorization", "")
            there.heard.append(Heard(self.command, self.path, authorization, body))
            self.send_response(500 if self.path in there.refuses else 200)
            self.end_headers()
            self.wfile.write(b'{"data": {"podTerminate": null}}')

        def do_DELETE(self) -> None:
            self.do_POST()

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        there.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield there
        server.shutdown()
        thread.join()


@pytest.fixture
def boot(tmp_path: Path, world: World) -> Iterator[Callable[..., Booted]]:
    """Start the boot program over a script; keyword arguments change its environment."""
    started: list[Booted] = []

    def start(script: str, **changes: str | None) -> Booted:
        environ = {**pod_environ(script, tmp_path, world), **changes}
        process = subprocess.Popen(
            [sys.executable, "-u", BOOT],
            env={key: value for key, value in environ.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(Booted(process, tmp_path / "run-1"))
        return started[-1]

    yield start
    for booted in started:
        booted.process.kill()
        booted.process.communicate()


@pytest.fixture
def hub_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Serve a hub that this process takes for the only one, with weights to publish there."""
    from tests.runtime.hub_world import HubWorld, delivered, hub_of_this_process

    with hub_of_this_process(monkeypatch) as hub:
        yield HubWorld(hub, delivered(tmp_path / "delivered"))
