"""A world to publish in: a hub on loopback, a delivered folder, and publishers between them."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils._http import default_client_factory
from tests.runtime.hub_server import WRITER, LoopbackHub, Repository
from tests.runtime.test_main import PLAN

from podproof.runtime.checkpoints import file_sha256
from podproof.runtime.delivery import DeliveryRecord
from podproof.runtime.events import EventKind
from podproof.runtime.hub import HubPace, HubPublisher
from podproof.runtime.plan import Plan, PublishPlan, PublishTo

REPO = "me/tiny"
CARD = '---\nlibrary_name: "transformers"\n---\n\n# tiny\n'
FILES = {
    "README.md": CARD.encode(),
    "chat_template.jinja": b"{{ messages }}",
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"first" * 100,
    "model-00002-of-00002.safetensors": b"second" * 100,
}
HURRIED = HubPace(check_s=20, tries_s=25, margin_s=0.2, shortest_s=0.5)


@dataclass
class HubWorld:
    """A hub, a delivered folder, and publishers as one script after another would make them."""

    hub: LoopbackHub
    record: DeliveryRecord
    told: list[tuple[EventKind, Mapping[str, Any]]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    plan: Plan = replace(PLAN, publish=PublishPlan(to=PublishTo.HUB, repo_id=REPO))  # noqa: RUF009

    def publisher(self, pace: HubPace = HURRIED) -> HubPublisher:
        return HubPublisher(self.plan, self._take_note, self.notices.append, pace)

    def publish(self, pace: HubPace = HURRIED) -> Mapping[str, Any]:
        return self.publisher(pace).publish(self.record)

    @property
    def repository(self) -> Repository:
        return self.hub.repositories[REPO]

    def _take_note(
        self,
        kind: EventKind,
        *,
        step: int | None = None,
        epoch: float | None = None,
        body: Mapping[str, Any],
    ) -> None:
        self.told.append((kind, body))


def delivered(folder: Path, files: Mapping[str, bytes] = FILES) -> DeliveryRecord:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return DeliveryRecord(
        config_sha256="c" * 64,
        ending=EventKind.DONE,
        reason=None,
        final_step=6,
        best_step=4,
        best_score=1.0,
        step=4,
        checkpoint=str(folder.parent / "checkpoint-4"),
        path=str(folder),
        sha256={name: file_sha256(folder / name) for name in files},
    )


@contextmanager
def hub_of_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """Serve a hub that this process takes for the only one, and forget it afterwards."""
    with_hub = LoopbackHub()
    monkeypatch.setenv("HF_ENDPOINT", with_hub.url)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setenv("PODPROOF_PAUSE_SECONDS", "0.01")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", constants.HF_HUB_DISABLE_XET)
    verbosity = hub_logging.get_verbosity()
    yield with_hub
    with_hub.stop()
    for thread in threading.enumerate():
        if thread.name == "publishing":
            thread.join()
    hub_logging.set_verbosity(verbosity)
    set_client_factory(default_client_factory)


def later(action: Callable[[], None], when: Callable[[], bool]) -> threading.Thread:
    """Do something as soon as something else is so; join it at the end of the test."""

    def wait_and_act() -> None:
        end = time.monotonic() + 20
        while not when() and time.monotonic() < end:
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread
