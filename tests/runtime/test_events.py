"""Events: one strict line each, whatever a trainer logs; read back as they were sent."""

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, strategies as st

from podproof.runtime.events import (
    TERMINAL_KINDS,
    Event,
    EventKind,
    event_from_dict,
    event_from_line,
    event_to_dict,
    event_to_line,
    number_or_none,
    strict_json,
)

TEXT = st.text(st.characters(), max_size=8)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


class Odd:
    """Stands for a tensor of several numbers: it is a number only by name."""

    def __float__(self) -> float:
        raise RuntimeError("a Tensor with 2 elements cannot be converted to Scalar")

    def __str__(self) -> str:
        return "tensor([1., 2.])"


HOSTILE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXT
    | st.binary(max_size=4)
    | st.decimals()
    | st.fractions()
    | st.complex_numbers()
    | st.builds(Odd)
    | st.builds(object)
    | st.sampled_from([EventKind.DONE, 10**400, -0.0, 5e-324]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.none() | TEXT | st.integers() | st.floats(), inner, max_size=3)
        | st.frozensets(st.integers(), max_size=2)
    ),
    max_leaves=6,
)
EVENTS = st.builds(
    Event,
    event_id=TEXT.filter(bool),
    run_id=TEXT.filter(bool),
    boot=st.integers(),
    seq=st.integers(),
    kind=st.sampled_from(EventKind),
    time_unix_s=FINITE,
    step=st.none() | st.integers(),
    epoch=st.none() | FINITE,
    body=st.dictionaries(TEXT, PLAIN, max_size=3),
)

EVENT = Event("run-a-1-0", "run-a", 1, 0, EventKind.EVALUATION, 12.5, 3, 0.5, {"score": 1.5})


def fields_with(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {**event_to_dict(EVENT), **changes}


@given(EVENTS)
def test_an_event_comes_back_out_of_its_line(event: Event) -> None:
    assert event_from_line(event_to_line(event)) == event


@given(EVENTS, st.dictionaries(TEXT, HOSTILE, max_size=3), st.none() | st.floats())
def test_any_event_is_one_line_of_strict_json(
    event: Event, body: dict[str, Any], epoch: float | None
) -> None:
    line = event_to_line(Event(**{**event.__dict__, "body": body, "epoch": epoch}))

    assert line.isascii()
    assert "\n" not in line
    assert isinstance(json.loads(line, parse_constant=pytest.fail), dict)


@given(HOSTILE)
def test_making_values_strict_twice_changes_nothing_more(value: Any) -> None:
    once = strict_json(value)

    assert strict_json(once) == once


@given(PLAIN)
def test_plain_values_stay_what_they_are(value: Any) -> None:
    assert strict_json(value) == value


@pytest.mark.parametrize(
    ("value", "strict"),
    [
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (Decimal("1.5"), 1.5),
        (Decimal("NaN"), "NaN"),
        (Fraction(1, 4), 0.25),
        (10**400, 10**400),
        ((1, 2), [1, 2]),
        ({1: {2.5: None}}, {"1": {"2.5": None}}),
        (Odd(), "tensor([1., 2.])"),
        (1j, "1j"),
        (EventKind.DONE, "done"),
    ],
)
def test_a_value_that_json_does_not_have_gets_a_number_or_a_name(
    value: object, strict: object
) -> None:
    assert strict_json(value) == strict


@given(st.floats())
def test_a_number_comes_back_from_its_strict_form(value: float) -> None:
    back = number_or_none(strict_json(value))

    assert back is not None
    assert math.isnan(back) if math.isnan(value) else back == value


@pytest.mark.parametrize("value", ["12", "nan", "inf", "", True, None, [], {}])
def test_what_is_no_number_does_not_become_one(value: object) -> None:
    assert number_or_none(value) is None


@pytest.mark.parametrize(("value", "number"), [(10**400, math.inf), (-(10**400), -math.inf)])
def test_a_whole_number_beyond_any_is_infinite(value: int, number: float) -> None:
    assert number_or_none(value) == number


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"event_id": ""}, "event field 'event_id' must be non-empty text, got ''"),
        ({"run_id": 3}, "event field 'run_id' must be non-empty text, got 3"),
        ({"boot": "1"}, "event field 'boot' must be a whole number, got '1'"),
        ({"boot": True}, "event field 'boot' must be a whole number, got True"),
        ({"seq": 1.5}, "event field 'seq' must be a whole number, got 1.5"),
        ({"seq": math.inf}, "event field 'seq' must be a whole number, got inf"),
        ({"kind": "party"}, "event field 'kind' is none of ours: 'party'"),
        ({"kind": []}, "event field 'kind' is none of ours: []"),
        ({"time_unix_s": "now"}, "event field 'time_unix_s' must be a number, got 'now'"),
        ({"time_unix_s": None}, "event field 'time_unix_s' must be a number, got None"),
        ({"step": "3"}, "event field 'step' must be a whole number, got '3'"),
        ({"epoch": {}}, "event field 'epoch' must be a number, got {}"),
        ({"body": None}, "event field 'body' must be an object, got None"),
        ({"body": [[1, 2]]}, "event field 'body' must be an object, got [[1, 2]]"),
        ({"body": "text"}, "event field 'body' must be an object, got 'text'"),
    ],
)
def test_a_field_that_is_wrong_is_refused_by_name(changes: Mapping[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match="event field") as refused:
        event_from_dict(fields_with(changes))

    assert str(refused.value) == what


@pytest.mark.parametrize("field", sorted(event_to_dict(EVENT)))
def test_a_field_that_is_missing_is_refused_by_name(field: str) -> None:
    fields = {key: value for key, value in event_to_dict(EVENT).items() if key != field}

    with pytest.raises(ValueError, match=f"event without the field '{field}'"):
        event_from_dict(fields)


@given(TEXT)
def test_a_line_that_is_no_event_is_a_value_error_and_nothing_else(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which one depends on the line
        event_from_line(line)


@pytest.mark.parametrize("line", ["[]", "3", "null", "{}", "NaN", '{"event_id": 1}'])
def test_json_that_is_no_event_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which one depends on the line
        event_from_line(line)


def test_an_epoch_that_is_no_number_travels_by_its_name() -> None:
    event = Event(**{**EVENT.__dict__, "epoch": math.nan})

    assert json.loads(event_to_line(event))["epoch"] == "NaN"
    assert math.isnan(event_from_line(event_to_line(event)).epoch or 0.0)


def test_a_run_is_over_after_a_terminal_event_and_no_other() -> None:
    over = {kind for kind in EventKind if Event(**{**EVENT.__dict__, "kind": kind}).is_terminal}

    assert over == TERMINAL_KINDS == {
        EventKind.DONE,
        EventKind.STOPPED_EARLY,
        EventKind.PREEMPTED,
        EventKind.INTERRUPTED,
        EventKind.OUT_OF_TIME,
        EventKind.OUT_OF_MONEY,
        EventKind.FAILED,
    }  # fmt: skip
