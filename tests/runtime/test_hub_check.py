"""What is asked of the hub before training, and what is told of the token: nothing."""

import logging
from pathlib import Path

import pytest
from huggingface_hub import constants
from tests.runtime.hub_server import READER, Fault, Repository
from tests.runtime.hub_world import REPO, HubWorld

from podproof.runtime.errors import BadPlan, NotPublished

# huggingface_hub hands a file to its HTTP client in a way that the client frowns upon.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


# Before training.


def test_what_will_be_needed_is_asked_for_before_training(hub_world: HubWorld) -> None:
    hub_world.publisher().check(is_fresh=True)

    assert hub_world.repository.private
    assert ("auth_check", f"/api/models/{REPO}/auth-check/write") in hub_world.hub.heard
    assert hub_world.notices == []


@pytest.mark.parametrize(
    ("token", "what"),
    [
        ("", "there is no token for the hub"),
        ("hf_wrong", "the hub answered 401"),
        (READER, "the hub answered 403"),
    ],
)
def test_a_token_that_may_not_write_is_refused_before_training(
    hub_world: HubWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, token: str, what: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))

    with pytest.raises(BadPlan, match=what) as refused:
        hub_world.publisher().check(is_fresh=True)

    assert "HF_TOKEN" in refused.value.problems[0].way_out


def test_a_reader_of_a_repository_that_is_there_is_refused_before_training(
    hub_world: HubWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_world.publish()
    monkeypatch.setenv("HF_TOKEN", READER)

    with pytest.raises(BadPlan, match="the hub answered 403"):
        hub_world.publisher().check(is_fresh=True)


def test_private_weights_do_not_go_into_a_public_repository(hub_world: HubWorld) -> None:
    hub_world.hub.repositories[REPO] = Repository(private=False)
    hub_world.repository.add({}, "before")

    with pytest.raises(BadPlan, match=r"is public, and publish\.private asks for a private"):
        hub_world.publisher().check(is_fresh=True)
    with pytest.raises(NotPublished, match="is public"):
        hub_world.publish()

    assert len(hub_world.repository.commits) == 1


def test_a_hub_that_is_told_to_be_offline_is_refused_before_training(
    hub_world: HubWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(BadPlan, match="HF_HUB_OFFLINE is set"):
        hub_world.publisher().check(is_fresh=True)


def test_a_hub_that_is_down_does_not_keep_a_run_from_training(hub_world: HubWorld) -> None:
    hub_world.hub.fail("create", Fault.SERVER_ERROR)

    hub_world.publisher().check(is_fresh=True)

    assert hub_world.notices == ["the hub cannot take weights yet: the hub answered 500: boom"]


def test_a_refusal_does_not_end_a_run_that_has_checkpoints_to_lose(
    hub_world: HubWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)

    hub_world.publisher().check(is_fresh=False)

    assert hub_world.notices[0].startswith("the hub cannot take weights yet: the hub answered 403")


def test_a_hub_that_cannot_say_who_may_write_is_believed(hub_world: HubWorld) -> None:
    hub_world.hub.knows_auth_check = False

    hub_world.publisher().check(is_fresh=True)

    assert hub_world.notices == []


# The token.


@pytest.mark.parametrize("token", ["hf_" + "s" * 34, "a-token-of-another-kind"])
def test_the_token_is_in_nothing_that_is_told(
    hub_world: HubWorld,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    token: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("PODPROOF_VOLUME_ENDS_WITH_POD", "1")
    monkeypatch.setenv("PODPROOF_DEADLINE_UNIX_S", "0")
    caplog.set_level(logging.DEBUG)
    hub_world.publisher().check(is_fresh=False)
    with pytest.raises(NotPublished) as failed:
        hub_world.publish()

    said = capsys.readouterr()
    told = (
        f"{hub_world.notices} {hub_world.told} {failed.value} {caplog.text} {said.out} {said.err}"
    )
    assert "Invalid username or password" in told
    assert token not in told
