"""The collector on the how-to page, run as it stands there."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from podproof.monitor.store import open_store
from podproof.runtime.courier import CourierOutcome, EventCourier, ReportEndpoint
from podproof.runtime.events import Event, EventKind, event_to_dict

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "bring-your-own-collector.md"
EVENT = Event("run-a-1-0", "run-a", 1, 0, EventKind.PLAN, 0.0, None, None, {"name": "faq"})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until_up(url: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{url}/healthz", timeout=5):  # noqa: S310 - our own server
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError("the collector did not come up")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Serve the collector of the page for run-a, over a store in tmp_path."""
    program = re.search(
        r"`collect.py`:\n\n```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert program is not None
    (tmp_path / "collect.py").write_text(program[1])
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "collect.py", "run-a", str(port)],
        cwd=tmp_path,
        env={**os.environ, "PODPROOF_HOME": str(tmp_path), "PODPROOF_REPORT_TOKEN": "right"},
    )
    try:
        wait_until_up(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def test_it_stores_an_event_with_the_right_token_and_no_other(url: str, tmp_path: Path) -> None:
    stranger = EventCourier(ReportEndpoint(url, "wrong"), time.time)
    pod = EventCourier(ReportEndpoint(url, "right"), time.time)

    refused = stranger.post("run-a", [event_to_dict(EVENT)])
    accepted = pod.post("run-a", [event_to_dict(EVENT)])

    assert refused.outcome is CourierOutcome.TOKEN_REFUSED
    assert accepted.outcome is CourierOutcome.ACCEPTED
    with open_store(tmp_path / "podproof.db") as store:
        assert store.run("run-a").plan.name == "faq"
