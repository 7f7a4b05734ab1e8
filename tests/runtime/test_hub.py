"""Publishing: against a real HTTP hub on loopback, whatever it does."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils._http import default_client_factory
from tests.runtime.hub_server import KINDS, READER, WRITER, Fault, LoopbackHub, Repository
from tests.runtime.test_main import PLAN

from podproof.runtime.checkpoints import file_sha256
from podproof.runtime.delivery import DeliveryRecord
from podproof.runtime.errors import BadPlan, NotPublished
from podproof.runtime.events import EventKind
from podproof.runtime.hub import HubPace, HubPublisher
from podproof.runtime.plan import Plan, PublishPlan, PublishTo

# huggingface_hub hands a file to its HTTP client in a way that the client frowns upon.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

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
class World:
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


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
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


@pytest.fixture
def world(hub: LoopbackHub, tmp_path: Path) -> World:
    return World(hub, delivered(tmp_path / "delivered"))


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


# Publishing.


def test_the_repository_holds_the_delivered_files_and_the_event_says_where(world: World) -> None:
    published = world.publish()

    oid, files = world.repository.commits[-1]
    assert {name: files[name] for name in FILES} == FILES
    assert world.repository.private
    assert world.repository.messages == ["initial commit", "tiny: the weights of step 4"]
    assert world.told == [(EventKind.PUBLISHED, published)]
    assert published == {
        "repo_id": REPO,
        "commit": oid,
        "url": f"{world.hub.url}/{REPO}/tree/{oid}",
        "step": 4,
        "files": len(FILES),
    }


def test_a_repository_may_be_made_public(world: World) -> None:
    world.plan = replace(PLAN, publish=replace(world.plan.publish, private=False))

    world.publish()

    assert not world.repository.private


def test_xet_is_left_alone_on_a_hub_it_does_not_belong_to(world: World) -> None:
    world.publish()

    assert world.hub.count("unknown") == 0
    assert world.hub.count("put") == 2


def test_a_silent_hub_is_not_waited_for_for_ever(world: World) -> None:
    world.publish()

    assert huggingface_hub.get_session().timeout.read == 60


# Doing it again.


def test_a_second_start_makes_no_second_commit(world: World) -> None:
    first = world.publish()

    assert world.publish() == first
    assert len(world.repository.commits) == 2
    assert world.hub.count("put") == 2


def test_an_equal_repository_is_left_as_it_is_when_nothing_is_remembered(world: World) -> None:
    first = world.publish()
    Path(str(world.record.path)).with_name("published.json").unlink()

    assert world.publish() == first
    assert len(world.repository.commits) == 2


@pytest.mark.parametrize("memory", ["", "[]", "{}", '{"commit": 1', '{"repo_id": "me/tiny"}'])
def test_a_broken_memory_of_the_commit_is_no_hindrance(world: World, memory: str) -> None:
    first = world.publish()
    Path(str(world.record.path)).with_name("published.json").write_text(memory)

    assert world.publish() == first


def test_what_somebody_changed_on_the_hub_afterwards_stays(world: World) -> None:
    first = world.publish()
    world.repository.change("README.md", b"better")

    assert world.publish() == first
    assert world.repository.files["README.md"] == b"better"


def test_other_weights_make_another_commit(world: World, tmp_path: Path) -> None:
    first = world.publish()
    world.record = delivered(tmp_path / "delivered", {**FILES, "config.json": b"[]"})

    assert world.publish()["commit"] != first["commit"]
    assert world.repository.files["config.json"] == b"[]"


def test_a_repository_that_is_gone_is_made_and_filled_again(world: World) -> None:
    world.publish()
    world.hub.repositories.clear()

    world.publish()

    assert world.repository.files.items() >= FILES.items()


def test_what_a_loader_would_read_beside_our_files_goes_and_the_rest_stays(
    world: World, tmp_path: Path
) -> None:
    world.hub.repositories[REPO] = Repository(private=True)
    world.repository.add(
        {
            "LICENSE": b"mine",
            "adapter_config.json": b"of another run",
            "adapter_model.safetensors": b"of another run",
            "tokenizer.json": b"of another run",
            "figures/tokenizer.png": b"mine",
        },
        "before",
    )

    world.publish()

    assert sorted(world.repository.files) == sorted([*FILES, "LICENSE", "figures/tokenizer.png"])


# What may go wrong and passes.


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"auth_check"}))
def test_a_failure_at_any_step_is_tried_again(world: World, kind: str) -> None:
    world.hub.fail(kind, Fault.SERVER_ERROR)

    world.publish()

    assert world.repository.files.items() >= FILES.items()
    assert len(world.repository.commits) == 2


@pytest.mark.parametrize(
    "fault", [Fault.BAD_GATEWAY_PAGE, Fault.TOO_MANY, Fault.HANG_UP, Fault.DO_IT_AND_HANG_UP]
)
@pytest.mark.parametrize("kind", ["create", "info", "commit"])
def test_a_hub_in_trouble_is_tried_again_and_told_of(world: World, kind: str, fault: Fault) -> None:
    world.hub.fail(kind, fault)

    world.publish()

    assert world.repository.files.items() >= FILES.items()
    assert len(world.repository.commits) == 2
    assert [notice[:19] for notice in world.notices] == ["not published yet: "]


@pytest.mark.parametrize(
    ("kind", "what"),
    [("info", "README.md has 46 bytes, not 45"), ("resolve", "README.md differs")],
    ids=["the list of files", "the files"],
)
def test_what_is_read_back_otherwise_than_it_was_sent_is_not_published(
    world: World, kind: str, what: str
) -> None:
    world.hub.fail(kind, *[Fault.GARBLE] * 2)

    world.publish()

    assert world.notices == [f"not published yet: OSError: read back from the hub, {what}"]
    assert world.hub.faults[kind] == []
    assert world.repository.files.items() >= FILES.items()


def test_large_files_that_were_sent_before_a_cut_are_not_sent_again(world: World) -> None:
    world.hub.fail("put", Fault.HANG_UP)
    world.hub.fail("commit", Fault.SERVER_ERROR)

    world.publish()

    sent = [about for kind, about in world.hub.heard if kind == "put"]
    assert len(sent) == 3
    assert len(set(sent)) == 2


def test_a_commit_of_somebody_else_in_between_is_no_hindrance(world: World) -> None:
    world.publish()
    world.repository.change("config.json", b"old")
    Path(str(world.record.path)).with_name("published.json").unlink()
    changed = later(
        lambda: world.repository.change("a", b"b"),
        lambda: world.hub.count("preupload") == 2,
    )

    world.publish()

    changed.join()
    assert world.repository.files.items() >= FILES.items()


# Refusals.


def test_a_refusal_ends_it_where_the_weights_stay_on_the_volume(world: World) -> None:
    world.hub.fail("commit", Fault.FORBIDDEN)

    with pytest.raises(NotPublished) as refused:
        world.publish()

    (problem,) = refused.value.problems
    assert problem.where == "publish.repo_id"
    assert problem.what.startswith("the hub answered 403: you may not write here; ")
    assert problem.what.endswith(f"the weights lie in {world.record.path}")
    assert "HF_TOKEN" in problem.way_out
    assert refused.value.exit_code == 7


def test_a_refusal_is_waited_out_where_the_volume_ends_with_the_pod(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODPROOF_VOLUME_ENDS_WITH_POD", "1")
    world.hub.fail("commit", Fault.FORBIDDEN, Fault.FORBIDDEN, Fault.FORBIDDEN)

    world.publish()

    assert world.repository.files.items() >= FILES.items()
    assert world.notices == ["not published yet: the hub answered 403: you may not write here"]


def test_the_deadline_ends_it_and_the_last_words_say_what_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODPROOF_VOLUME_ENDS_WITH_POD", "1")
    monkeypatch.setenv("PODPROOF_DEADLINE_UNIX_S", "0")
    world.hub.fail("create", *[Fault.SERVER_ERROR] * 1000)

    with pytest.raises(NotPublished, match=r"the hub answered 500: boom; .* and end with the pod"):
        world.publish(HubPace(shortest_s=3.0))


def test_an_upload_that_hangs_is_left_when_time_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODPROOF_DEADLINE_UNIX_S", "0")
    world.hub.fail("commit", Fault.NEVER_ANSWER)

    with pytest.raises(NotPublished, match="time ran out in the middle"):
        world.publish()


def test_a_signal_leaves_an_upload_that_hangs(world: World) -> None:
    world.hub.fail("commit", Fault.NEVER_ANSWER)
    signalled = later(
        lambda: os.kill(os.getpid(), signal.SIGINT), lambda: world.hub.count("commit") > 0
    )

    with pytest.raises(KeyboardInterrupt):
        world.publish()

    signalled.join()


# Before training.


def test_what_will_be_needed_is_asked_for_before_training(world: World) -> None:
    world.publisher().check(is_fresh=True)

    assert world.repository.private
    assert ("auth_check", f"/api/models/{REPO}/auth-check/write") in world.hub.heard
    assert world.notices == []


@pytest.mark.parametrize(
    ("token", "what"),
    [
        ("", "there is no token for the hub"),
        ("hf_wrong", "the hub answered 401"),
        (READER, "the hub answered 403"),
    ],
)
def test_a_token_that_may_not_write_is_refused_before_training(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, token: str, what: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))

    with pytest.raises(BadPlan, match=what) as refused:
        world.publisher().check(is_fresh=True)

    assert "HF_TOKEN" in refused.value.problems[0].way_out


def test_a_reader_of_a_repository_that_is_there_is_refused_before_training(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish()
    monkeypatch.setenv("HF_TOKEN", READER)

    with pytest.raises(BadPlan, match="the hub answered 403"):
        world.publisher().check(is_fresh=True)


def test_private_weights_do_not_go_into_a_public_repository(world: World) -> None:
    world.hub.repositories[REPO] = Repository(private=False)
    world.repository.add({}, "before")

    with pytest.raises(BadPlan, match=r"is public, and publish\.private asks for a private"):
        world.publisher().check(is_fresh=True)
    with pytest.raises(NotPublished, match="is public"):
        world.publish()

    assert len(world.repository.commits) == 1


def test_a_hub_that_is_told_to_be_offline_is_refused_before_training(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(BadPlan, match="HF_HUB_OFFLINE is set"):
        world.publisher().check(is_fresh=True)


def test_a_hub_that_is_down_does_not_keep_a_run_from_training(world: World) -> None:
    world.hub.fail("create", Fault.SERVER_ERROR)

    world.publisher().check(is_fresh=True)

    assert world.notices == ["the hub cannot take weights yet: the hub answered 500: boom"]


def test_a_refusal_does_not_end_a_run_that_has_checkpoints_to_lose(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)

    world.publisher().check(is_fresh=False)

    assert world.notices[0].startswith("the hub cannot take weights yet: the hub answered 403")


def test_a_hub_that_cannot_say_who_may_write_is_believed(world: World) -> None:
    world.hub.knows_auth_check = False

    world.publisher().check(is_fresh=True)

    assert world.notices == []


# The token.


@pytest.mark.parametrize("token", ["hf_" + "s" * 34, "a-token-of-another-kind"])
def test_the_token_is_in_nothing_that_is_told(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    token: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("PODPROOF_VOLUME_ENDS_WITH_POD", "1")
    monkeypatch.setenv("PODPROOF_DEADLINE_UNIX_S", "0")
    caplog.set_level(logging.DEBUG)
    world.publisher().check(is_fresh=False)
    with pytest.raises(NotPublished) as failed:
        world.publish()

    said = capsys.readouterr()
    told = f"{world.notices} {world.told} {failed.value} {caplog.text} {said.out} {said.err}"
    assert "Invalid username or password" in told
    assert token not in told
