"""The type a library writes for an argument, and what fits it."""

import pytest

from podproof.harness.api_types import misfit


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("int | None", "many"),
        ("int", 1.5),
        ("int", True),
        ("float", "1e-4"),
        ("bool", "yes"),
        ("bool", 1),
        ("str", 3),
        ("list[str]", "q_proj"),
        ("dict[str, bool] | None", ["a"]),
        ("float", None),
    ],
)
def test_what_is_of_no_type_named_does_not_fit(annotation: str, value: object) -> None:
    assert misfit(annotation, value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("float | None", 3),
        ("None | str | list[str]", ["none"]),
        ("dict[str, Any] | str | None", {"a": 1}),
        ("bool | None", None),
        ("IntervalStrategy | str", 3),
        ("str | None | Literal[False]", False),
    ],
)
def test_what_fits_or_what_nobody_can_judge_does(annotation: str, value: object) -> None:
    assert not misfit(annotation, value)
