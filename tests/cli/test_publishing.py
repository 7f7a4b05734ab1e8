"""A whole run on the local pod that publishes its weights, and what the record says of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_launch import SHORT, digests, podproof, shown
from tests.runtime.hub_server import READER, WRITER, LoopbackHub

REPO = "me/tiny"
ON_THE_HUB = ("experiment=tiny_sft", "publish=hub", f"publish.repo_id={REPO}", *SHORT)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with_hub = LoopbackHub()
    monkeypatch.setenv("HF_ENDPOINT", with_hub.url)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield with_hub
    with_hub.stop()


@pytest.mark.slow
def test_a_launch_publishes_and_the_record_says_where(tmp_path: Path, hub: LoopbackHub) -> None:
    done = podproof(tmp_path, "launch", *ON_THE_HUB)

    assert done.returncode == 0, done.stderr
    record = shown(tmp_path)
    commit, files = hub.repositories[REPO].commits[-1]
    delivered = Path(record["delivery"]["path"])
    url = f"{hub.url}/{REPO}/tree/{commit}"
    assert record["publication"] == {
        "repo_id": REPO,
        "commit": commit,
        "url": url,
        "step": record["best"]["step"],
    }
    assert done.stdout.splitlines()[-1] == f"the chosen weights lie in {delivered} and at {url}"
    assert {path.name: path.read_bytes() for path in delivered.iterdir()}.items() <= files.items()
    assert digests(delivered) == dict(record["delivery"]["sha256"])
    assert f"published  {url}" in podproof(tmp_path, "show").stdout.replace("\n", "")
    assert WRITER not in done.stdout + done.stderr + json.dumps(record)
    assert WRITER not in Path(record["launch"]["log_path"]).read_text()


@pytest.mark.slow
def test_a_launch_that_may_not_publish_is_over_before_it_trains(
    tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)

    done = podproof(tmp_path, "launch", *ON_THE_HUB)

    record = shown(tmp_path)
    assert done.returncode == 1
    assert record["ending"]["error"] == "BadPlan"
    assert "the hub answered 403" in record["ending"]["problems"][0]
    assert record["evaluations"] == []
