"""The adapter over RunPod's SDK: what goes in is checked, what comes out is ours."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from podproof.compiler.limits import Size
from podproof.harness.verdict import Cleared
from podproof.launcher.client import LogSource, PodRequest
from podproof.launcher.delivery import wrap
from podproof.launcher.emulator import Emulator
from podproof.launcher.emulator_faults import Fault, Operation
from podproof.launcher.errors import (
    AuthenticationFailed,
    LaunchFailed,
    NoCapacity,
    OverLimit,
    ProviderUnavailable,
)
from podproof.launcher.runpod_sdk import RunPodSdk, find_api_key
from podproof.launcher.runpod_text import hostile_texts

MakeRequest = Callable[..., PodRequest]
WaitUntil = Callable[[Callable[[], bool]], None]

HOSTILE = ('a"b', "a\\b", "a\nb", "a\rb", "a\0b")
TEXT_FIELDS = ("name", "image", "gpu", "data_center", "network_volume", "start_command")


@pytest.fixture
def emulator(clean_emulator: Emulator) -> Emulator:
    """Share one emulator, for these tests start nothing that they wait for."""
    return clean_emulator


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", TEXT_FIELDS)
def test_a_hostile_text_is_named_and_never_sent(
    module_emulator: Emulator, make_request: MakeRequest, field: str, text: str
) -> None:
    client = RunPodSdk(module_emulator.api_key, base_url=module_emulator.url)
    before = module_emulator.requests

    with pytest.raises(OverLimit) as caught:
        client.create(make_request(**{field: text}))

    assert [problem.where for problem in caught.value.problems] == [field]
    assert module_emulator.requests == before


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_value_is_named_by_its_key_and_not_shown(
    make_request: MakeRequest, text: str
) -> None:
    problems = hostile_texts(make_request(env=(("TOKEN", f"hunter2{text}"),)))

    assert [problem.where for problem in problems] == ["env.TOKEN"]
    assert "hunter2" not in str(problems[0])


def test_every_hostile_text_of_a_request_is_named_at_once(make_request: MakeRequest) -> None:
    request = make_request(name='"', cuda_versions=("12.8", "\\"), env=(('"', "\n"),))

    problems = hostile_texts(request)

    assert [problem.where for problem in problems] == [
        "name",
        "cuda_versions[1]",
        "env[0]",
        "env[0]",
    ]


@pytest.mark.parametrize("pod_id", ['x"}) { id }', "x\\"])
def test_a_hostile_pod_id_is_never_sent(client: RunPodSdk, pod_id: str) -> None:
    with pytest.raises(OverLimit):
        client.find(pod_id)
    with pytest.raises(OverLimit):
        client.terminate(pod_id)
    with pytest.raises(OverLimit):
        client.read_logs(pod_id)


@settings(max_examples=25, deadline=None)
@given(value=st.text(st.characters(codec="utf-8", exclude_characters='"\\\r\n\0'), max_size=40))
def test_every_other_text_arrives_as_it_was_sent(
    module_emulator: Emulator, make_request: MakeRequest, value: str
) -> None:
    client = RunPodSdk(module_emulator.api_key, base_url=module_emulator.url)

    client.terminate(client.create(make_request(start_command=value, env=(("VALUE", value),))))

    created = module_emulator.requests[-2].arguments["input"]
    assert created["env"] == [{"key": "VALUE", "value": value}]
    assert created["dockerArgs"] == value


def test_a_request_is_no_longer_than_was_reckoned(
    emulator: Emulator,
    client: RunPodSdk,
    make_cleared: Callable[..., Cleared],
    make_request: MakeRequest,
) -> None:
    cleared = make_cleared("x = 1\n" * 2_000, env=(("A", "ä" * 50), ("B", "b")))
    parcel = wrap(cleared.script, run_id="run-1", report=None, boot_source="boot\n" * 500)

    client.create(make_request(start_command=parcel.start_command, env=parcel.env))

    reckoned, sent = parcel.sizes[Size.REQUEST], emulator.requests[-1].body_bytes
    assert sent <= reckoned <= sent + 1_000


def test_a_pod_with_a_network_volume_lands_where_the_volume_is(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest
) -> None:
    client.create(make_request(network_volume="local-volume"))

    assert emulator.requests[-1].arguments["input"]["dataCenterId"] == "LOCAL-1"


def test_want_of_machines_is_no_capacity(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest
) -> None:
    emulator.fail_next(Operation.DEPLOY_GPU, Fault.NO_CAPACITY)

    with pytest.raises(NoCapacity, match="no longer any instances available"):
        client.create(make_request())

    assert client.list_pods() == ()


def test_an_unknown_gpu_is_said_to_be_unknown(client: RunPodSdk, make_request: MakeRequest) -> None:
    with pytest.raises(LaunchFailed, match="knows no GPU of this id") as caught:
        client.create(make_request(gpu="NVIDIA Abacus"))

    assert not isinstance(caught.value, ProviderUnavailable)


def test_a_refused_key_is_a_failed_authentication(emulator: Emulator) -> None:
    client = RunPodSdk("another key", base_url=emulator.url)

    with pytest.raises(AuthenticationFailed, match="RUNPOD_API_KEY"):
        client.list_pods()
    with pytest.raises(AuthenticationFailed, match="RUNPOD_API_KEY"):
        client.read_logs("some-pod")


@pytest.mark.parametrize(
    "fault",
    [
        Fault.NOTHING_DONE,
        Fault.RATE_LIMITED,
        Fault.BAD_GATEWAY,
        Fault.DONE_THEN_ERROR,
        Fault.DONE_THEN_ERRORS,
        Fault.DONE_THEN_CUT,
    ],
)
def test_any_other_failure_leaves_open_whether_there_is_a_pod(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest, fault: Fault
) -> None:
    emulator.fail_next(Operation.DEPLOY_GPU, fault)

    with pytest.raises(ProviderUnavailable):
        client.create(make_request())


@pytest.mark.parametrize(
    "fault", [Fault.RATE_LIMITED, Fault.BAD_GATEWAY, Fault.DONE_THEN_CUT, Fault.NOTHING_DONE]
)
def test_a_list_that_fails_is_not_an_empty_list(
    emulator: Emulator, client: RunPodSdk, fault: Fault
) -> None:
    emulator.fail_next(Operation.MYSELF, fault)

    with pytest.raises(ProviderUnavailable):
        client.list_pods()


@pytest.mark.parametrize("fault", [Fault.BAD_GATEWAY, Fault.DONE_THEN_CUT])
def test_a_log_that_cannot_be_had_is_not_an_empty_log(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest, fault: Fault
) -> None:
    pod_id = client.create(make_request())
    emulator.fail_next(Operation.REST_LOGS, fault)

    with pytest.raises(ProviderUnavailable) as caught:
        client.read_logs(pod_id)

    assert (caught.value.__context__, caught.value.__cause__) == (None, None)


def test_a_provider_that_is_not_there_is_unavailable() -> None:
    nobody = RunPodSdk("key", base_url="http://127.0.0.1:9")

    with pytest.raises(ProviderUnavailable):
        nobody.list_pods()


@pytest.mark.slow
def test_an_answer_that_does_not_come_leaves_open_whether_there_is_a_pod(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest
) -> None:
    """Slow, since nobody can tell the SDK to wait for less than its 30 s."""
    emulator.fail_next(Operation.DEPLOY_GPU, Fault.DONE_THEN_SILENCE)

    with pytest.raises(ProviderUnavailable, match="ReadTimeout"):
        client.create(make_request())

    assert len(client.list_pods()) == 1


def test_no_secret_leaves_with_an_error(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest
) -> None:
    emulator.fail_next(Operation.DEPLOY_GPU, Fault.DONE_THEN_ERRORS)

    with pytest.raises(ProviderUnavailable) as caught:
        client.create(make_request(env=(("PASSWORD", "hunter2"),)))

    assert "hunter2" not in str(caught.value)
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)


def test_a_secret_that_the_provider_quotes_is_blotted_out(
    client: RunPodSdk, make_request: MakeRequest
) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        client.create(make_request(network_volume="no-such-volume", env=(("NEED", "needs an"),)))

    assert "input [NEED] existing networkVolumeId" in str(caught.value)


def test_the_environment_is_left_as_it_was(
    client: RunPodSdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_API_BASE_URL", "https://before.example")
    monkeypatch.delenv("NO_PROXY", raising=False)

    client.list_pods()

    assert os.environ["RUNPOD_API_BASE_URL"] == "https://before.example"
    assert "NO_PROXY" not in os.environ


def test_a_proxy_does_not_come_between_us_and_the_loopback(
    client: RunPodSdk, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    pod_id = client.create(make_request())

    assert client.read_logs(pod_id) == ()


def test_a_netrc_does_not_replace_the_key(
    client: RunPodSdk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))

    assert client.list_pods() == ()


def test_a_slash_at_the_end_of_the_base_url_does_no_harm(emulator: Emulator) -> None:
    client = RunPodSdk(emulator.api_key, base_url=f"{emulator.url}/")

    assert client.list_pods() == ()


def test_a_log_is_read_line_by_line(
    client: RunPodSdk, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    pod_id = client.create(make_request(start_command="sh -c 'echo one; echo two; sleep 600'"))
    wait_until(lambda: len(client.read_logs(pod_id)) == 2)

    lines = client.read_logs(pod_id)

    assert [(line.source, line.text) for line in lines] == [
        (LogSource.CONTAINER, "one"),
        (LogSource.CONTAINER, "two"),
    ]


def test_the_key_comes_from_the_environment_first(tmp_path: Path) -> None:
    write_config(tmp_path, '[default]\napi_key = "from-file"\n')

    assert find_api_key({"RUNPOD_API_KEY": "from-env"}, tmp_path) == "from-env"


def test_the_key_comes_from_the_file_of_runpods_tools_otherwise(tmp_path: Path) -> None:
    write_config(tmp_path, '[default]\napi_key = "from-file"\n')

    assert find_api_key({}, tmp_path) == "from-file"


@pytest.mark.parametrize("config", ["", "not toml [", "default = 3\n", "[default]\napi_key = 3\n"])
def test_without_a_key_the_way_to_one_is_shown(tmp_path: Path, config: str) -> None:
    write_config(tmp_path, config)

    with pytest.raises(AuthenticationFailed, match="set RUNPOD_API_KEY, or"):
        find_api_key({}, tmp_path)


def test_without_a_file_the_way_to_a_key_is_shown(tmp_path: Path) -> None:
    with pytest.raises(AuthenticationFailed, match="set RUNPOD_API_KEY, or"):
        find_api_key({}, tmp_path)


def write_config(home: Path, text: str) -> None:
    (home / ".runpod").mkdir()
    (home / ".runpod" / "config.toml").write_text(text)
