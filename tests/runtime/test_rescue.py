"""A run that cannot go on, on a pod whose disk ends with it: its best so far is published first."""

import os
import resource
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tests.runtime.hub_server import WRITER, LoopbackHub
from tests.runtime.pod_process import Fault, PodFolder, plan_for

from podproof.runtime.events import EventKind
from podproof.runtime.plan import PublishPlan, PublishTo, RecoveryPlan

REPO = "me/tiny"
ON_THE_HUB = replace(plan_for(), publish=PublishPlan(to=PublishTo.HUB, repo_id=REPO))
TOO_SMALL_BYTES = 20_000


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with_hub = LoopbackHub()
    yield with_hub
    with_hub.stop()


def on_a_pod(url: str, *, ends_with_pod: bool, file_bytes: int | None) -> None:
    """Prepare a run's process: its hub, what its disk is, and how large a file may get."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = False
    there = {"HF_ENDPOINT": url, "HF_TOKEN": WRITER, "PODPROOF_PAUSE_SECONDS": "0.01"}
    os.environ |= {**there, "PODPROOF_VOLUME_ENDS_WITH_POD": "1" if ends_with_pod else "0"}
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))


def stopped_run(folder: Path, hub: LoopbackHub) -> PodFolder:
    pod = PodFolder(folder / "run", ON_THE_HUB)
    alive = partial(on_a_pod, hub.url, ends_with_pod=True, file_bytes=None)
    assert pod.run(Fault(at=6, sends=signal.SIGTERM), before=alive) == 143
    return pod


@pytest.fixture
def weights_fit(tmp_path: Path, hub: LoopbackHub) -> tuple[PodFolder, int]:
    """Return a run that was stopped, and a size that its weights have and its optimizer has not."""
    pod = stopped_run(tmp_path, hub)
    files = [(pod.output / "checkpoint-6" / name) for name in ("model.safetensors", "optimizer.pt")]
    weights, optimizer = [path.stat().st_size for path in files]
    assert weights < optimizer
    return pod, optimizer - 100


def test_the_best_so_far_is_published_before_a_full_disk_ends_the_pod(
    weights_fit: tuple[PodFolder, int], hub: LoopbackHub
) -> None:
    pod, file_bytes = weights_fit
    full = partial(on_a_pod, hub.url, ends_with_pod=True, file_bytes=file_bytes)

    code = pod.run(before=full)

    last = pod.events(EventKind.DELIVERED, EventKind.PUBLISHED, EventKind.FAILED)
    _, files = hub.repositories[REPO].commits[-1]
    best = pod.output / f"checkpoint-{last[1].body['step']}" / "model.safetensors"
    assert code == 5
    assert [event.kind for event in last] == [
        EventKind.DELIVERED,
        EventKind.PUBLISHED,
        EventKind.FAILED,
    ]
    assert files["model.safetensors"] == best.read_bytes()


def test_weights_for_which_the_disk_has_no_room_twice_are_published_all_the_same(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    pod = stopped_run(tmp_path, hub)
    weights = (pod.output / "checkpoint-6" / "model.safetensors").stat().st_size
    full = partial(on_a_pod, hub.url, ends_with_pod=True, file_bytes=weights - 100)

    code = pod.run(before=full)

    assert (code, len(pod.events(EventKind.PUBLISHED))) == (5, 1)
    assert len(hub.repositories[REPO].commits[-1][1]["model.safetensors"]) == weights


def on_start(number: int, url: str) -> None:
    on_a_pod(url, ends_with_pod=True, file_bytes=None)
    os.environ["PODPROOF_BOOT"] = str(number)


def test_a_crash_in_the_last_start_publishes_the_best_so_far_and_one_before_does_not(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    pod = PodFolder(tmp_path / "run", replace(ON_THE_HUB, recovery=RecoveryPlan(max_restarts=1)))
    broken = [Fault(at=at, error="an illegal memory access") for at in (10, 2)]

    first = pod.run(broken[0], before=partial(on_start, 1, hub.url))
    published = pod.events(EventKind.PUBLISHED)
    last = pod.run(broken[1], before=partial(on_start, 2, hub.url))

    told = pod.events(EventKind.PUBLISHED, EventKind.FAILED)
    assert (first, published, last) == (1, [], 1)
    kinds = [EventKind.FAILED, EventKind.PUBLISHED, EventKind.FAILED]
    assert [event.kind for event in told] == kinds
    assert told[-1].body["error"] == "RuntimeError: an illegal memory access"
    assert "model.safetensors" in hub.repositories[REPO].commits[-1][1]


def test_what_was_rescued_does_not_keep_another_start_from_training_on(
    weights_fit: tuple[PodFolder, int], hub: LoopbackHub
) -> None:
    pod, file_bytes = weights_fit
    pod.run(before=partial(on_a_pod, hub.url, ends_with_pod=True, file_bytes=file_bytes))

    code = pod.run(before=partial(on_a_pod, hub.url, ends_with_pod=True, file_bytes=None))

    assert (code, pod.ending()["kind"], pod.ending()["final_step"]) == (0, "done", 12)


def test_nothing_is_published_early_where_the_volume_stays(
    weights_fit: tuple[PodFolder, int], hub: LoopbackHub
) -> None:
    pod, file_bytes = weights_fit

    code = pod.run(before=partial(on_a_pod, hub.url, ends_with_pod=False, file_bytes=file_bytes))

    assert code == 5
    assert not pod.events(EventKind.PUBLISHED)


def test_a_run_that_saved_nothing_says_that_there_is_nothing_to_publish(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    pod = PodFolder(tmp_path / "run", ON_THE_HUB)
    full = partial(on_a_pod, hub.url, ends_with_pod=True, file_bytes=TOO_SMALL_BYTES)

    code = pod.run(before=full)

    assert code == 5
    assert any("no checkpoint was saved" in what for what in pod.notices())
    assert pod.ending()["kind"] == "failed"
