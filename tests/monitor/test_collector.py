import hashlib
import json
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from podproof.monitor.collector import MAX_BODY_BYTES, serve
from podproof.monitor.records import RunStatus
from podproof.monitor.store import Store, open_store
from podproof.runtime.courier import ReportEndpoint
from podproof.runtime.events import EventKind
from podproof.runtime.reporter import Reporter, ReportSource

TOKEN = "one-token-per-run"  # noqa: S105 - a token of these tests


@contextmanager
def collecting_into(store: Store) -> Iterator[httpx.Client]:
    """Give a client of a collector at which run-a is registered."""
    store.register_token("run-a", hashlib.sha256(TOKEN.encode()).hexdigest())
    with serve(store) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.fixture
def client(store: Store) -> Iterator[httpx.Client]:
    """Give a client of a collector of its own."""
    with collecting_into(store) as client:
        yield client


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Give the store of all tests in which nothing may be stored."""
    with open_store(tmp_path_factory.mktemp("untouched") / "runs.db") as store:
        yield store


@pytest.fixture(scope="module")
def refused(untouched: Store) -> Iterator[httpx.Client]:
    """Give the client of all tests in which nothing may be stored."""
    with collecting_into(untouched) as client:
        yield client


def event(seq: Any = 0, **fields: Any) -> dict[str, Any]:
    return {
        "event_id": f"run-a-1-{seq}",
        "run_id": "run-a",
        "boot": 1,
        "seq": seq,
        "kind": "train_log",
        "time_unix_s": 1000.0,
        "step": 5,
        "epoch": 0.5,
        "body": {"loss": 1.0},
        **fields,
    }


def post(
    client: httpx.Client, *events: Any, job_id: str = "run-a", token: str = TOKEN
) -> httpx.Response:
    report = {"job_id": job_id, "events": events}
    return post_text(client, json.dumps(report), authorization=f"Bearer {token}")


def post_text(
    client: httpx.Client, text: str | bytes, *, authorization: str = f"Bearer {TOKEN}"
) -> httpx.Response:
    headers = {"Authorization": authorization}
    return client.post("/rpc/ingest_events", content=text, headers=headers)


def test_events_are_accepted_and_stored(store: Store, client: httpx.Client) -> None:
    response = post(client, event(0), event(1, step=7))

    assert (response.status_code, response.json()) == (200, {"accepted": 2})
    assert store.run("run-a").step == 7


def test_an_event_sent_again_is_accepted_but_not_counted(client: httpx.Client) -> None:
    post(client, event(0))

    assert post(client, event(0), event(1)).json() == {"accepted": 1}


def test_a_report_without_events_is_fine(client: httpx.Client) -> None:
    assert post(client).json() == {"accepted": 0}


def test_the_collector_says_that_it_is_well(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize("authorization", ["", "Bearer", "Basic abc", TOKEN])
def test_a_report_without_a_token_is_unauthorized(
    refused: httpx.Client, authorization: str
) -> None:
    response = post_text(refused, "{}", authorization=authorization)

    assert response.status_code == 401
    assert "Authorization: Bearer TOKEN" in response.json()["error"]


def test_a_wrong_token_is_unauthorized_and_nothing_is_stored(
    untouched: Store, refused: httpx.Client
) -> None:
    response = post(refused, event(), token="guessed")  # noqa: S106 - a wrong one

    assert response.status_code == 401
    assert untouched.runs() == ()


def test_a_job_nobody_registered_is_told_the_same_as_a_wrong_token(refused: httpx.Client) -> None:
    unknown = post(refused, job_id="run-x")
    wrong = post(refused, token="guessed")  # noqa: S106 - a wrong one

    assert (unknown.status_code, unknown.json()) == (wrong.status_code, wrong.json())


def test_events_of_another_job_are_forbidden_and_nothing_is_stored(
    untouched: Store, refused: httpx.Client
) -> None:
    foreign = event(1, run_id="run-b", event_id="run-b-1-1")

    response = post(refused, event(0), foreign)

    assert (response.status_code, response.json()["error"]) == (403, "events[1] is of another job")
    assert untouched.runs() == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the body is not strict JSON"),
        ("{", "the body is not strict JSON"),
        (b"\xff\xfe", "the body is not strict JSON"),
        ('{"job_id": "run-a", "events": [NaN]}', "NaN is not JSON"),
        ("[" * 100_000, "the body is not strict JSON"),
        ("[]", "must be an object with job_id and events"),
        ('{"events": []}', "job_id must be the id of a run"),
        ('{"job_id": "", "events": []}', "job_id must be the id of a run"),
        ('{"job_id": "\\ud800", "events": []}', "job_id must be the id of a run"),
        ('{"job_id": 7, "events": []}', "job_id must be the id of a run"),
        ('{"job_id": "run-a"}', "events must be a list"),
        ('{"job_id": "run-a", "events": {}}', "events must be a list"),
    ],
)
def test_a_body_that_is_no_report_is_refused_with_the_reason(
    refused: httpx.Client, text: str | bytes, reason: str
) -> None:
    response = post_text(refused, text)

    assert response.status_code == 400
    assert reason in response.json()["error"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("text", "events[0] must be an object"),
        ({}, "events[0]: event without the field 'event_id'"),
        (event(kind="party"), "events[0]: event field 'kind' is none of ours: 'party'"),
        (event(body=None), "events[0]: event field 'body' must be an object, got None"),
        (event(event_id="run-a-2-0"), "events[0]: event_id must be run_id-boot-seq"),
        (event(seq="x"), "events[0]: event field 'seq' must be a whole number, got 'x'"),
        (event(step=-1), "events[0]: boot, seq, step, epoch or time is out of range"),
        (event(step=2**31), "events[0]: boot, seq, step, epoch or time is out of range"),
        (event(time_unix_s="NaN"), "events[0]: boot, seq, step, epoch or time is out of range"),
        (event(epoch="Infinity"), "events[0]: boot, seq, step, epoch or time is out of range"),
    ],
)
def test_an_event_that_cannot_be_read_is_refused_by_its_place(
    untouched: Store, refused: httpx.Client, wrong: Any, reason: str
) -> None:
    response = post(refused, wrong)

    assert response.status_code == 400
    assert response.json()["error"].startswith(reason)
    assert untouched.runs() == ()


def test_a_number_too_large_for_json_is_refused(refused: httpx.Client) -> None:
    report = {"job_id": "run-a", "events": [event(step=0)]}
    text = json.dumps(report).replace('"step": 0', '"step": 1e999')

    assert post_text(refused, text).status_code == 400


def test_a_body_too_deep_to_be_read_is_refused(refused: httpx.Client) -> None:
    report = json.dumps({"job_id": "run-a", "events": [event(body={"deep": "HERE"})]})
    text = report.replace('"HERE"', "[" * 50_000 + "]" * 50_000)

    assert post_text(refused, text).status_code == 400


def test_a_body_over_the_limit_is_refused_after_it_was_sent(refused: httpx.Client) -> None:
    response = post_text(refused, b" " * (MAX_BODY_BYTES + 1))

    assert response.status_code == 413
    assert str(MAX_BODY_BYTES) in response.json()["error"]


def test_a_store_that_is_locked_means_try_again_later(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Store(f"sqlite:///{path}", busy_timeout_s=0.05) as store, serve(store) as url:
        store.register_token("run-a", hashlib.sha256(TOKEN.encode()).hexdigest())
        with (
            closing(sqlite3.connect(path, isolation_level=None)) as other,
            httpx.Client(base_url=url) as client,
        ):
            other.execute("BEGIN IMMEDIATE")
            response = post(client, event())

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert str(path) not in response.text


def test_a_client_that_hangs_up_in_the_middle_does_no_harm(client: httpx.Client) -> None:
    address = client.base_url.host, client.base_url.port
    with socket.create_connection(address) as broken:
        broken.sendall(
            b"POST /rpc/ingest_events HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
        )

    assert post(client, event()).json() == {"accepted": 1}


def test_the_collector_ends_while_a_client_is_still_connected(store: Store) -> None:
    before = set(threading.enumerate())
    with httpx.Client() as client:
        with serve(store) as url:
            client.get(f"{url}/healthz")

        with pytest.raises(httpx.ConnectError):
            client.get(f"{url}/healthz")
        assert {t for t in threading.enumerate() if t.name == "podproof-collector"} <= before


def test_what_a_reporter_reports_is_what_the_store_knows(tmp_path: Path, store: Store) -> None:
    store.register_token("run-a", hashlib.sha256(TOKEN.encode()).hexdigest())
    with serve(store) as url:
        endpoint = ReportEndpoint(url, TOKEN)
        reporter = Reporter(tmp_path, ReportSource("run-a", 1), endpoint=endpoint)
        reporter.report(EventKind.PLAN, body={"name": "demo", "total_steps": 20})
        reporter.report(EventKind.EVALUATION, step=10, body={"eval_loss": 0.5, "score": 0.5})
        reporter.report(EventKind.EVALUATION, step=20, body={"eval_loss": float("nan")})
        reporter.report(EventKind.DONE, step=20, body={"best_step": 10})
        is_delivered = reporter.close(20.0)

    record = store.run("run-a")
    assert is_delivered
    assert (record.status, record.progress) == (RunStatus.DONE, 1.0)
    assert record.best is not None
    assert (record.best.step, [item.is_usable for item in record.evaluations]) == (
        10,
        [True, False],
    )
