"""Answers: how each validator measures one, and that the fast distance is the distance."""

import socket
from typing import Any

import pytest
from hypothesis import given, strategies as st
from jsonschema.exceptions import SchemaError

from podproof.runtime.answers import (
    answer_checks,
    character_error_rate,
    edit_distance,
    is_exact_match,
)
from podproof.runtime.plan import PredictionsPlan, Validator

TEXT = st.text("ab cé漢\n", max_size=30)
SCHEMA = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}


def distance_by_the_table(first: str, second: str) -> int:
    """Return the Levenshtein distance as textbooks compute it, cell by cell."""
    row = list(range(len(second) + 1))
    for index, one in enumerate(first, 1):
        above, row[0] = row[0], index
        for place, other in enumerate(second, 1):
            cell = min(row[place] + 1, row[place - 1] + 1, above + (one != other))
            above, row[place] = row[place], cell
    return row[-1]


def schema_check(schema: dict[str, Any]) -> Any:
    plan = PredictionsPlan(validators=(Validator.JSON_SCHEMA,), json_schema=schema)
    return answer_checks(plan)[Validator.JSON_SCHEMA]


@given(TEXT, TEXT)
def test_the_distance_is_that_of_the_full_table(first: str, second: str) -> None:
    assert edit_distance(first, second) == distance_by_the_table(first, second)


@given(TEXT, TEXT, TEXT)
def test_the_distance_is_a_metric(first: str, second: str, third: str) -> None:
    assert edit_distance(first, first) == 0
    assert edit_distance(first, second) == edit_distance(second, first)
    assert edit_distance(first, third) <= edit_distance(first, second) + edit_distance(
        second, third
    )


def test_the_distance_of_long_texts_is_found_too() -> None:
    assert edit_distance("ab" * 8000, "ba" * 8000) == 2


@pytest.mark.parametrize(
    ("answer", "expected", "rate"),
    [
        ("", "", 0.0),
        (" \n", "", 0.0),
        ("x", "", 1.0),
        ("", "four", 1.0),
        ("four", " four ", 0.0),
        ("fours", "four", 0.25),
        ("a much longer one", "aa", 8.0),
    ],
)
def test_the_character_error_rate_is_edits_over_expected_characters(
    answer: str, expected: str, rate: float
) -> None:
    assert character_error_rate(answer, expected) == rate


def test_white_space_around_an_answer_is_no_difference_but_case_is() -> None:
    assert is_exact_match(" Yes.\n", "Yes.")
    assert not is_exact_match("yes.", "Yes.")


@pytest.mark.parametrize(
    ("answer", "is_json"),
    [
        ('{"a": [1, null]}', True),
        (" 12 ", True),
        ('{"a": 1', False),
        ("{'a': 1}", False),
        ('{"a": NaN}', False),
        ("", False),
        ("[" * 100_000, False),
        ('```json\n{"a": 1}\n```', False),
    ],
)
def test_json_is_what_a_strict_parser_takes_whole(answer: str, is_json: bool) -> None:  # noqa: FBT001 - a column of the table
    check = answer_checks(PredictionsPlan(validators=(Validator.JSON,)))[Validator.JSON]

    assert check(answer, "") is is_json


@pytest.mark.parametrize(
    ("answer", "is_valid"),
    [
        ('{"city": "Ulm"}', True),
        ('{"city": 7}', False),
        ("{}", False),
        ("Ulm", False),
    ],
)
def test_an_answer_is_held_against_the_schema(answer: str, is_valid: bool) -> None:  # noqa: FBT001 - a column of the table
    assert schema_check(SCHEMA)(answer, "") is is_valid


def test_a_schema_that_is_none_is_refused() -> None:
    with pytest.raises(SchemaError):
        schema_check({"type": "objekt"})


def test_a_schema_that_points_elsewhere_is_not_fetched() -> None:
    from referencing.exceptions import Unresolvable

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        check = schema_check({"$ref": f"http://127.0.0.1:{server.getsockname()[1]}/schema"})

        with pytest.raises(Unresolvable):
            check("{}", "")
        with pytest.raises(TimeoutError):
            server.accept()


def test_only_the_validators_asked_for_are_made() -> None:
    plan = PredictionsPlan(validators=(Validator.JSON, Validator.EXACT_MATCH))

    assert list(answer_checks(plan)) == [Validator.JSON, Validator.EXACT_MATCH]
