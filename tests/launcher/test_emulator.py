"""The emulator keeps RunPod's measured habits, the bad ones above all."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from podproof.launcher.client import LogLine, LogSource, PodRequest, PodStatus
from podproof.launcher.emulator import Emulator, Habits
from podproof.launcher.emulator_container import decode_args
from podproof.launcher.emulator_faults import Fault, Operation
from podproof.launcher.errors import ProviderUnavailable
from podproof.launcher.runpod_sdk import RunPodSdk

MakeRequest = Callable[..., PodRequest]
WaitUntil = Callable[[Callable[[], bool]], None]

# A process that neither obeys SIGTERM nor ends by itself.
STUBBORN = "sh -c 'trap : TERM; echo ready; while true; do sleep 0.05; done'"


def system_lines(lines: tuple[LogLine, ...]) -> set[str]:
    return {line.text for line in lines if line.source is LogSource.SYSTEM}


def graphql(emulator: Emulator, query: str, key: str | None = None) -> tuple[int, Any]:
    """Ask as no SDK would; return the status and the answer."""
    headers = {"Authorization": f"Bearer {key or emulator.api_key}"}
    with httpx.Client(trust_env=False) as http:
        response = http.post(f"{emulator.url}/graphql", json={"query": query}, headers=headers)
    return response.status_code, response.json()


def rest(emulator: Emulator, method: str, path: str, key: str | None = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key or emulator.api_key}"}
    with httpx.Client(trust_env=False) as http:
        return http.request(method, f"{emulator.url}{path}", headers=headers)


def printed(emulator: Emulator, pod_id: str) -> str:
    return emulator.log_path(pod_id).read_text()


def pod_env(emulator: Emulator, pod_id: str, wait_until: WaitUntil) -> Mapping[str, str]:
    """Return the environment that a pod started with `env` printed."""
    wait_until(lambda: "ended" in printed(emulator, pod_id))
    first_run = printed(emulator, pod_id).split(" system ")[0]
    lines = [line.split(" container ", 1)[-1] for line in first_run.splitlines()]
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_a_command_that_exits_is_started_again_and_the_pod_stays_wanted(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    pod_id = client.create(make_request(start_command="sh -c 'echo hi; exit 3'"))

    wait_until(lambda: emulator.starts(pod_id) >= 3)

    pod = client.find(pod_id)
    assert pod is not None
    assert pod.status in {PodStatus.STARTING, PodStatus.RUNNING}
    assert "the container ended with exit code 3" in printed(emulator, pod_id)


def test_a_running_command_makes_a_running_pod(
    client: RunPodSdk, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    pod_id = client.create(make_request())

    wait_until(lambda: getattr(client.find(pod_id), "status", None) is PodStatus.RUNNING)


def test_a_pod_sees_the_image_then_its_own_environment_and_nothing_of_ours(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    os.environ["LAUNCHERS_OWN"] = "private"

    pod_id = client.create(
        make_request(start_command="env", env=(("A", "1"), ("PODPROOF_PYTHON", "mine")))
    )

    env = pod_env(emulator, pod_id, wait_until)
    assert (env["A"], env["PODPROOF_PYTHON"], env["RUNPOD_POD_ID"]) == ("1", "mine", pod_id)
    assert env["RUNPOD_API_BASE_URL"] == emulator.url
    assert "LAUNCHERS_OWN" not in env
    del os.environ["LAUNCHERS_OWN"]


def test_each_pod_has_a_scratch_folder_of_its_own(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    pod_ids = [client.create(make_request(name=name, start_command="env")) for name in ("a", "b")]

    folders = [pod_env(emulator, pod_id, wait_until)["TMPDIR"] for pod_id in pod_ids]

    assert folders[0] != folders[1]


def test_a_secret_is_put_in_where_it_is_named(
    tmp_path: Path, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    with Emulator(tmp_path, api_key="k", image_env={}, secrets={"hf": "hunter2"}) as emulator:
        client = RunPodSdk("k", base_url=emulator.url)
        env = (("TOKEN", "{{ RUNPOD_SECRET_hf }}"), ("OTHER", "{{ RUNPOD_SECRET_none }}"))
        seen = pod_env(
            emulator, client.create(make_request(start_command="env", env=env)), wait_until
        )

    assert (seen["TOKEN"], seen["OTHER"]) == ("hunter2", "{{ RUNPOD_SECRET_none }}")


def test_a_network_volume_outlives_its_pod_and_a_pods_own_disks_do_not(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    command = "sh -c 'touch here $PODPROOF_VOLUME/kept; pwd; echo done; sleep 600'"
    pod_id = client.create(make_request(start_command=command, network_volume="local-volume"))
    wait_until(lambda: "done" in printed(emulator, pod_id))
    here = Path(printed(emulator, pod_id).split("\n")[0].split(" container ")[1])
    assert (here / "here").exists()

    client.terminate(pod_id)

    wait_until(lambda: not here.exists())
    assert (emulator.volume_path("local-volume") / "kept").exists()


def test_a_pod_without_a_network_volume_has_a_volume_of_its_own(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    pod_id = client.create(make_request(start_command="env"))

    assert pod_id in pod_env(emulator, pod_id, wait_until)["PODPROOF_VOLUME"]


def test_a_terminated_pod_dies_even_if_it_does_not_listen(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    pod_id = client.create(make_request(start_command=STUBBORN))
    wait_until(lambda: "ready" in printed(emulator, pod_id))

    client.terminate(pod_id)

    assert client.find(pod_id) is None
    wait_until(lambda: "the container ended with exit code -9" in printed(emulator, pod_id))


def test_a_stopped_pod_keeps_its_volume_loses_its_disk_and_can_be_resumed(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    command = "sh -c 'ls $PODPROOF_VOLUME; touch $PODPROOF_VOLUME/kept; echo done; sleep 600'"
    pod_id = client.create(make_request(start_command=command))
    wait_until(lambda: printed(emulator, pod_id).count("done") == 1)

    graphql(emulator, f'mutation {{ podStop(input: {{podId: "{pod_id}"}}) {{ id }} }}')
    stopped = client.find(pod_id)
    graphql(
        emulator, f'mutation {{ podResume(input: {{podId: "{pod_id}", gpuCount: 1}}) {{ id }} }}'
    )

    assert stopped is not None
    assert stopped.status is PodStatus.EXITED
    wait_until(lambda: printed(emulator, pod_id).count("done") == 2)
    assert " container kept" in printed(emulator, pod_id)


def test_an_environment_too_big_for_the_kernel_never_starts_and_says_so_in_the_log(
    client: RunPodSdk, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    pod_id = client.create(make_request(env=(("BIG", "x" * 131_068),)))

    wait_until(lambda: bool(client.read_logs(pod_id)))

    reason = "error starting container: argument list too long"
    assert system_lines(client.read_logs(pod_id)) == {reason}
    assert getattr(client.find(pod_id), "status", None) is PodStatus.STARTING


def test_an_environment_as_big_as_the_kernel_takes_does_start(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    pod_id = client.create(make_request(env=(("BIG", "x" * 131_067),)))

    wait_until(lambda: emulator.starts(pod_id) == 1)


def test_a_command_that_is_not_there_never_starts(
    client: RunPodSdk, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    pod_id = client.create(make_request(start_command="no-such-command"))

    wait_until(lambda: bool(client.read_logs(pod_id)))

    reason = "error starting container: no such file or directory"
    assert system_lines(client.read_logs(pod_id)) == {reason}


@pytest.mark.parametrize(
    ("docker_args", "argv"),
    [
        ("bash -c 'a b'", ("bash", "-c", "a b")),
        ("echo $HOME | wc", ("echo", "$HOME", "|", "wc")),
        ("it's broken", ("it's", "broken")),
        ('{"cmd": ["a b", "c"]}', ("a b", "c")),
        ('{"entrypoint": ["sh", "-c"], "cmd": ["x"]}', ("sh", "-c", "x")),
        ("3", ("3",)),
        ("", ("tail", "-f", "/dev/null")),
    ],
)
def test_a_start_command_is_taken_apart_without_a_shell(
    docker_args: str, argv: tuple[str, ...]
) -> None:
    assert decode_args(docker_args) == argv


def test_more_variables_or_a_longer_name_than_allowed_are_refused(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest
) -> None:
    pairs = ", ".join(f'{{key: "K{number}", value: "v"}}' for number in range(51))

    _, answer = graphql(
        emulator,
        f'mutation {{ deployCpuPod(input: {{name: "{"n" * 192}", env: [{pairs}]}}) {{ id }} }}',
    )

    message = answer["errors"][0]["message"]
    assert "at most 50 environment variables" in message
    assert "a name of at most 191 characters" in message
    assert client.list_pods() == ()


def test_a_query_that_cannot_be_parsed_is_answered_without_the_reason(emulator: Emulator) -> None:
    status, answer = graphql(emulator, 'query { pod(input: {podId: "a"b"}) { id } }')

    assert status == 400
    assert answer["errors"][0]["message"].startswith("Something went wrong.")
    assert emulator.parse_failures[0].startswith("Syntax Error")


def test_a_query_that_cannot_be_parsed_is_explained_on_request(tmp_path: Path) -> None:
    habits = Habits(mask_errors=False)

    with Emulator(tmp_path, api_key="k", image_env={}, habits=habits) as emulator:
        _, answer = graphql(emulator, "query {")

    assert answer["errors"][0]["message"].startswith("Syntax Error")


def test_an_unknown_field_is_a_bad_request(emulator: Emulator) -> None:
    status, answer = graphql(emulator, "query { myself { shoeSize } }")

    assert status == 400
    assert "shoeSize" in answer["errors"][0]["message"]


def test_a_huge_request_is_an_internal_error(emulator: Emulator) -> None:
    with httpx.Client(trust_env=False) as http:
        response = http.post(f"{emulator.url}/graphql", content=b"x" * 300_001)

    assert response.status_code == 500


@pytest.mark.parametrize("body", [b"", b"not JSON", b"[]", b"{}", b"3"])
def test_a_body_without_a_query_is_a_bad_request(emulator: Emulator, body: bytes) -> None:
    with httpx.Client(trust_env=False) as http:
        response = http.post(f"{emulator.url}/graphql", content=body)

    assert response.status_code == 400


def test_variables_are_taken_too(emulator: Emulator) -> None:
    query = "query find($id: String!) { pod(input: {podId: $id}) { id } }"
    body = {"query": query, "variables": {"id": "none"}}
    headers = {"Authorization": f"Bearer {emulator.api_key}"}

    with httpx.Client(trust_env=False) as http:
        answer = http.post(f"{emulator.url}/graphql", json=body, headers=headers).json()

    assert answer == {"data": {"pod": None}}
    assert emulator.requests[-1].arguments == {"input": {"podId": "none"}}


def test_a_pods_own_key_opens_that_pod_and_nothing_else(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    own = client.create(make_request(start_command="env"))
    other = client.create(make_request(name="other"))
    key = pod_env(emulator, own, wait_until)["RUNPOD_API_KEY"]

    _, mine = graphql(emulator, f'{{ pod(input: {{podId: "{own}"}}) {{ id }} }}', key)
    _, foreign = graphql(emulator, f'{{ pod(input: {{podId: "{other}"}}) {{ id }} }}', key)
    _, account = graphql(emulator, "{ myself { id } }", key)
    end = f'mutation {{ podTerminate(input: {{podId: "{other}"}}) }}'
    _, ended = graphql(emulator, end, key)

    assert mine == {"data": {"pod": {"id": own}}}
    assert foreign == {"data": {"pod": None}}
    assert account["errors"][0]["message"] == "Unauthorized"
    assert ended["errors"][0]["message"] == "pod not found to terminate"
    assert rest(emulator, "GET", "/v2/pods", key).status_code == 403
    assert rest(emulator, "DELETE", f"/v2/pods/{other}", key).status_code == 404


def test_no_key_opens_nothing(emulator: Emulator) -> None:
    status, _ = graphql(emulator, "{ myself { id } }", "wrong")

    assert status == 401
    assert rest(emulator, "GET", "/v2/pods", "wrong").status_code == 401


def test_rest_shows_and_ends_the_same_pods(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest
) -> None:
    pod_id = client.create(make_request())

    listed = rest(emulator, "GET", "/v2/pods").json()["pods"]
    found = rest(emulator, "GET", f"/v2/pods/{pod_id}").json()
    ended = rest(emulator, "DELETE", f"/v2/pods/{pod_id}")

    assert [pod["id"] for pod in listed] == [pod_id]
    assert (found["name"], found["cost"]) == ("run-1", 0.45)
    assert ended.status_code == 204
    assert rest(emulator, "GET", f"/v2/pods/{pod_id}").status_code == 404
    assert client.list_pods() == ()


def test_a_log_stream_gives_the_tail_and_then_what_comes(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    command = "sh -c 'echo one; echo two; echo three; sleep 600'"
    pod_id = client.create(make_request(start_command=command))
    wait_until(lambda: "three" in printed(emulator, pod_id))
    headers = {"Authorization": f"Bearer {emulator.api_key}"}
    url = f"{emulator.url}/v2/pods/{pod_id}/logs"

    with (
        httpx.Client(trust_env=False) as http,
        http.stream("GET", url, params={"tail": 1}, headers=headers) as response,
    ):
        data = next(line for line in response.iter_lines() if line.startswith("data:"))

    assert json.loads(data.removeprefix("data:"))["line"] == "three"


def test_faults_come_once_each_in_their_order(emulator: Emulator, client: RunPodSdk) -> None:
    emulator.fail_next(Operation.MYSELF, Fault.BAD_GATEWAY, Fault.RATE_LIMITED)

    with pytest.raises(ProviderUnavailable):
        client.list_pods()
    with pytest.raises(ProviderUnavailable):
        client.list_pods()

    assert client.list_pods() == ()


def test_a_list_can_lag_behind(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest
) -> None:
    pod_id = client.create(make_request())
    emulator.fail_next(Operation.MYSELF, Fault.LIST_LAG)

    assert client.list_pods() == ()
    assert [pod.pod_id for pod in client.list_pods()] == [pod_id]


def test_every_request_is_recorded_without_the_values_of_its_environment(
    emulator: Emulator, client: RunPodSdk, make_request: MakeRequest
) -> None:
    client.create(make_request(env=(("PASSWORD", "hunter2"),)))

    lookup, creation = emulator.requests
    assert (lookup.operation, creation.operation) == ("gpuTypes", "podFindAndDeployOnDemand")
    assert creation.arguments["input"]["env"] == [{"key": "PASSWORD", "value": "<7 characters>"}]
    assert creation.body_bytes > 300


def test_only_the_loopback_is_served(emulator: Emulator) -> None:
    assert emulator.url.startswith("http://127.0.0.1:")


def test_nothing_is_left_when_the_emulator_is_closed(
    tmp_path: Path, make_request: MakeRequest, wait_until: WaitUntil
) -> None:
    with Emulator(tmp_path, api_key="k", image_env={}, habits=Habits(grace_s=0.1)) as emulator:
        client = RunPodSdk("k", base_url=emulator.url)
        pod_id = client.create(make_request(start_command=STUBBORN))
        wait_until(lambda: "ready" in printed(emulator, pod_id))

    assert printed(emulator, pod_id).endswith("the container ended with exit code -9\n")
    with pytest.raises(ProviderUnavailable):
        client.list_pods()
