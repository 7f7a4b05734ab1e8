import socket

import pytest

from podproof.runtime.courier import (
    CourierOutcome,
    EventCourier,
    ReportEndpoint,
    courier_retry_after_s,
)
from podproof.runtime.errors import BadPlan


@pytest.mark.parametrize(
    "url", ["", "collector:8000", "ftp://collector", "http://", "http://[::1", "http://host:99999"]
)
def test_an_address_no_request_could_reach_is_refused_before_training(url: str) -> None:
    with pytest.raises(BadPlan, match="PODPROOF_REPORT_URL: must be an http or https address"):
        ReportEndpoint(url, "token")


def test_a_token_of_two_lines_is_refused_without_being_shown() -> None:
    with pytest.raises(BadPlan) as caught:
        ReportEndpoint("http://collector", "secret\ntoken")

    assert "PODPROOF_REPORT_TOKEN" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_token_is_not_in_the_repr_of_its_endpoint() -> None:
    assert "hidden" not in repr(ReportEndpoint("http://collector", "hidden"))


def test_a_collector_that_is_not_there_means_try_again() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    courier = EventCourier(ReportEndpoint(f"http://127.0.0.1:{port}", "token"), lambda: 0.0)

    reply = courier.post("run-a", [{"event_id": "run-a-1-0"}])

    assert reply.outcome is CourierOutcome.TRY_AGAIN


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        (" 7 ", 7.0),
        ("Thu, 01 Jan 1970 00:01:00 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(header: str, seconds: float | None) -> None:
    assert courier_retry_after_s(header, now_unix_s=20.0) == seconds
