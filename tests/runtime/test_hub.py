"""Publishing: against a real HTTP hub on loopback, whatever it does."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from tests.runtime.hub_server import KINDS, Fault, Repository
from tests.runtime.hub_world import FILES, REPO, HubWorld, delivered, later

from podproof.runtime.errors import NotPublished
from podproof.runtime.events import EventKind
from podproof.runtime.hub import HubPace, hub_fault

# huggingface_hub hands a file to its HTTP client in a way that the client frowns upon.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


# Publishing.


def test_the_repository_holds_the_delivered_files_and_the_event_says_where(
    hub_world: HubWorld,
) -> None:
    published = hub_world.publish()

    oid, files = hub_world.repository.commits[-1]
    assert {name: files[name] for name in FILES} == FILES
    assert hub_world.repository.private
    assert hub_world.repository.messages == ["initial commit", "tiny: the weights of step 4"]
    assert hub_world.told == [(EventKind.PUBLISHED, published)]
    assert published == {
        "repo_id": REPO,
        "commit": oid,
        "url": f"{hub_world.hub.url}/{REPO}/tree/{oid}",
        "step": 4,
        "files": len(FILES),
    }


def test_a_repository_may_be_made_public(hub_world: HubWorld) -> None:
    publish = replace(hub_world.plan.publish, private=False)
    hub_world.plan = replace(hub_world.plan, publish=publish)

    hub_world.publish()

    assert not hub_world.repository.private


def test_xet_is_left_alone_on_a_hub_it_does_not_belong_to(hub_world: HubWorld) -> None:
    hub_world.publish()

    assert hub_world.hub.count("unknown") == 0
    assert hub_world.hub.count("put") == 2


def test_a_silent_hub_is_not_waited_for_for_ever(hub_world: HubWorld) -> None:
    hub_world.publish()

    assert huggingface_hub.get_session().timeout.read == 60


# Doing it again.


def test_a_second_start_makes_no_second_commit(hub_world: HubWorld) -> None:
    first = hub_world.publish()

    assert hub_world.publish() == first
    assert len(hub_world.repository.commits) == 2
    assert hub_world.hub.count("put") == 2


def test_an_equal_repository_is_left_as_it_is_when_nothing_is_remembered(
    hub_world: HubWorld,
) -> None:
    first = hub_world.publish()
    Path(str(hub_world.record.path)).with_name("published.json").unlink()

    assert hub_world.publish() == first
    assert len(hub_world.repository.commits) == 2


@pytest.mark.parametrize("memory", ["", "[]", "{}", '{"commit": 1', '{"repo_id": "me/tiny"}'])
def test_a_broken_memory_of_the_commit_is_no_hindrance(hub_world: HubWorld, memory: str) -> None:
    first = hub_world.publish()
    Path(str(hub_world.record.path)).with_name("published.json").write_text(memory)

    assert hub_world.publish() == first


def test_what_somebody_changed_on_the_hub_afterwards_stays(hub_world: HubWorld) -> None:
    first = hub_world.publish()
    hub_world.repository.change("README.md", b"better")

    assert hub_world.publish() == first
    assert hub_world.repository.files["README.md"] == b"better"


def test_other_weights_make_another_commit(hub_world: HubWorld, tmp_path: Path) -> None:
    first = hub_world.publish()
    hub_world.record = delivered(tmp_path / "delivered", {**FILES, "config.json": b"[]"})

    assert hub_world.publish()["commit"] != first["commit"]
    assert hub_world.repository.files["config.json"] == b"[]"


def test_a_repository_that_is_gone_is_made_and_filled_again(hub_world: HubWorld) -> None:
    hub_world.publish()
    hub_world.hub.repositories.clear()

    hub_world.publish()

    assert hub_world.repository.files.items() >= FILES.items()


def test_what_a_loader_would_read_beside_our_files_goes_and_the_rest_stays(
    hub_world: HubWorld, tmp_path: Path
) -> None:
    hub_world.hub.repositories[REPO] = Repository(private=True)
    hub_world.repository.add(
        {
            "LICENSE": b"mine",
            "adapter_config.json": b"of another run",
            "adapter_model.safetensors": b"of another run",
            "tokenizer.json": b"of another run",
            "figures/tokenizer.png": b"mine",
        },
        "before",
    )

    hub_world.publish()

    assert sorted(hub_world.repository.files) == sorted(
        [*FILES, "LICENSE", "figures/tokenizer.png"]
    )


# What may go wrong and passes.


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"auth_check"}))
def test_a_failure_at_any_step_is_tried_again(hub_world: HubWorld, kind: str) -> None:
    hub_world.hub.fail(kind, Fault.SERVER_ERROR)

    hub_world.publish()

    assert hub_world.repository.files.items() >= FILES.items()
    assert len(hub_world.repository.commits) == 2


@pytest.mark.parametrize(
    "fault", [Fault.BAD_GATEWAY_PAGE, Fault.TOO_MANY, Fault.HANG_UP, Fault.DO_IT_AND_HANG_UP]
)
@pytest.mark.parametrize("kind", ["create", "info", "commit"])
def test_a_hub_in_trouble_is_tried_again_and_told_of(
    hub_world: HubWorld, kind: str, fault: Fault
) -> None:
    hub_world.hub.fail(kind, fault)

    hub_world.publish()

    assert hub_world.repository.files.items() >= FILES.items()
    assert len(hub_world.repository.commits) == 2
    assert [notice[:19] for notice in hub_world.notices] == ["not published yet: "]


@pytest.mark.parametrize(
    ("kind", "what"),
    [("info", "README.md has 46 bytes, not 45"), ("resolve", "README.md differs")],
    ids=["the list of files", "the files"],
)
def test_what_is_read_back_otherwise_than_it_was_sent_is_not_published(
    hub_world: HubWorld, kind: str, what: str
) -> None:
    hub_world.hub.fail(kind, *[Fault.GARBLE] * 2)

    hub_world.publish()

    assert hub_world.notices == [f"not published yet: OSError: read back from the hub, {what}"]
    assert hub_world.hub.faults[kind] == []
    assert hub_world.repository.files.items() >= FILES.items()


def test_large_files_that_were_sent_before_a_cut_are_not_sent_again(hub_world: HubWorld) -> None:
    hub_world.hub.fail("put", Fault.HANG_UP)
    hub_world.hub.fail("commit", Fault.SERVER_ERROR)

    hub_world.publish()

    sent = [about for kind, about in hub_world.hub.heard if kind == "put"]
    assert len(sent) == 3
    assert len(set(sent)) == 2


def test_a_commit_of_somebody_else_in_between_is_no_hindrance(hub_world: HubWorld) -> None:
    hub_world.publish()
    hub_world.repository.change("config.json", b"old")
    Path(str(hub_world.record.path)).with_name("published.json").unlink()
    changed = later(
        lambda: hub_world.repository.change("a", b"b"),
        lambda: hub_world.hub.count("preupload") >= 2,
    )

    hub_world.publish()

    changed.join()
    assert hub_world.repository.files.items() >= FILES.items()


# Refusals.


def test_a_refusal_ends_it_where_the_weights_stay_on_the_volume(hub_world: HubWorld) -> None:
    hub_world.hub.fail("commit", Fault.FORBIDDEN)

    with pytest.raises(NotPublished) as refused:
        hub_world.publish()

    (problem,) = refused.value.problems
    assert problem.where == "publish.repo_id"
    assert problem.what.startswith("the hub answered 403: you may not write here; ")
    assert problem.what.endswith(f"the weights lie in {hub_world.record.path}")
    assert "HF_TOKEN" in problem.way_out
    assert refused.value.exit_code == 7


def test_a_refusal_is_waited_out_where_the_volume_ends_with_the_pod(
    hub_world: HubWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODPROOF_VOLUME_ENDS_WITH_POD", "1")
    hub_world.hub.fail("commit", Fault.FORBIDDEN, Fault.FORBIDDEN, Fault.FORBIDDEN)

    hub_world.publish()

    assert hub_world.repository.files.items() >= FILES.items()
    assert hub_world.notices == ["not published yet: the hub answered 403: you may not write here"]


def test_the_deadline_ends_it_and_the_last_words_say_what_is_lost(
    hub_world: HubWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODPROOF_VOLUME_ENDS_WITH_POD", "1")
    monkeypatch.setenv("PODPROOF_DEADLINE_UNIX_S", "0")
    hub_world.hub.fail("create", *[Fault.SERVER_ERROR] * 1000)

    with pytest.raises(NotPublished, match=r"the hub answered 500: boom; .* and end with the pod"):
        hub_world.publish(HubPace(shortest_s=3.0))


def test_an_upload_that_hangs_is_left_when_time_is_over(
    hub_world: HubWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODPROOF_DEADLINE_UNIX_S", "0")
    hub_world.hub.fail("commit", Fault.NEVER_ANSWER)

    with pytest.raises(NotPublished, match="time ran out in the middle"):
        hub_world.publish()


def test_a_signal_leaves_an_upload_that_hangs(hub_world: HubWorld) -> None:
    hub_world.hub.fail("commit", Fault.NEVER_ANSWER)
    signalled = later(
        lambda: os.kill(os.getpid(), signal.SIGINT), lambda: hub_world.hub.count("commit") > 0
    )

    with pytest.raises(KeyboardInterrupt):
        hub_world.publish()

    signalled.join()


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", 0.0), (None, 0.0)])
def test_a_hub_is_heard_that_says_how_long_to_wait(
    hub_world: HubWorld, header: str | None, seconds: float
) -> None:
    hub_world.hub.retry_after = header
    hub_world.hub.fail("create", Fault.TOO_MANY)

    with pytest.raises(HfHubHTTPError) as asked:
        HfApi(endpoint=hub_world.hub.url).create_repo(REPO)

    fault = hub_fault(asked.value)
    assert (fault.is_refusal, fault.retry_after_s) == (False, seconds)


def test_the_first_cause_is_what_is_said() -> None:
    error = RuntimeError("Error while uploading 'model.safetensors' to the Hub.")
    error.__cause__ = ConnectionResetError(104, "Connection reset by peer")

    said = "ConnectionResetError: [Errno 104] Connection reset by peer"
    assert hub_fault(error).what == said


def test_addresses_are_not_said_for_they_may_be_signed() -> None:
    error = OSError("PUT https://store.example/x?X-Amz-Signature=abc failed")

    assert hub_fault(error).what == "OSError: PUT ... failed"
