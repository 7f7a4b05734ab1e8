"""Bounds: every number has a range, and what stands outside of it is refused by key."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, strategies as st

from podproof.compiler.bounds import BOUNDS, Bound
from podproof.compiler.rules import violations
from podproof.compiler.schema import METHODS, SECTIONS, Config
from tests.compiler.conftest import changed

# -1 or at least 1, which no single range says; a rule of its own does.
RULED_ELSEWHERE = {"trainer.max_steps"}


def number_keys(prefix: str, kind: Any) -> set[str]:
    """Return the dotted keys of every number in a section, nested sections too."""
    hints = get_type_hints(kind)
    nested = {item.name for item in fields(kind) if is_dataclass(hints[item.name])}
    below = (number_keys(f"{prefix}.{name}", hints[name]) for name in sorted(nested))
    numbers = {
        f"{prefix}.{item.name}"
        for item in fields(kind)
        if {int, float} & {hints[item.name], *get_args(hints[item.name])}
        and not str(hints[item.name]).startswith("tuple")
    }
    return numbers.union(*below)


def config_for(configs: Mapping[str, Config], key: str) -> Config:
    """Return a config whose method has the key."""
    name = key.removeprefix("method.")
    having = (method for method, kind in METHODS.items() if name in get_type_hints(kind))
    return configs[next(having, "sft") if key.startswith("method.") else "sft"]


def outside(bound: Bound) -> list[float]:
    """Return the nearest values that a bound must not admit."""
    ends = [bound.above, bound.below, math.nan, math.inf, -math.inf]
    ends += [math.nextafter(bound.at_least, -math.inf), math.nextafter(bound.at_most, math.inf)]
    return ends


def test_every_number_of_the_schema_has_a_range() -> None:
    kinds = {**SECTIONS, **{f"method{name}": kind for name, kind in METHODS.items()}}
    found = {"seed"}.union(*(number_keys(key, kind) for key, kind in kinds.items()))
    without_method_names = {
        "method." + key.partition(".")[2] if key.startswith("method") else key for key in found
    }

    assert set(BOUNDS) == without_method_names - RULED_ELSEWHERE


@pytest.mark.parametrize("key", sorted(BOUNDS))
def test_a_value_just_outside_and_one_that_is_no_number_are_not_admitted(key: str) -> None:
    assert [value for value in outside(BOUNDS[key]) if BOUNDS[key].admits(value)] == []


@pytest.mark.parametrize("key", sorted(BOUNDS))
def test_what_the_way_out_proposes_is_admitted(key: str) -> None:
    assert BOUNDS[key].admits(float(BOUNDS[key].usual.split()[0]))


@pytest.mark.parametrize("key", sorted(BOUNDS))
@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -1.0, 10**400],
    ids=["nan", "inf", "-1", "400 digits"],
)
def test_a_config_outside_a_range_is_refused_by_key_with_a_value_to_write(
    configs: Mapping[str, Config], key: str, value: float
) -> None:
    config = changed(config_for(configs, key), {key: value})

    way_outs = [problem.way_out for problem in violations(config) if problem.where == key]
    assert f"set {key}={BOUNDS[key].usual}" in way_outs


@given(
    st.floats(-10, 10),
    st.floats(-10, 10),
    st.floats() | st.integers(-(10**400), 10**400),
)
def test_a_range_admits_what_lies_between_its_ends_and_is_finite(
    low: float, high: float, value: float
) -> None:
    closed, opened = Bound("1", at_least=low, at_most=high), Bound("1", above=low, below=high)

    assert closed.admits(value) == (low <= value <= high)
    assert opened.admits(value) == (low < value < high)


def test_a_bound_says_itself_in_words() -> None:
    assert str(Bound("1", above=0, at_most=1)) == "above 0 and at most 1"
    assert str(Bound("1")) == "finite"


def test_a_boolean_is_not_held_against_a_range(configs: Mapping[str, Config]) -> None:
    config = changed(configs["sft"], {"trainer.weight_decay": True})

    assert violations(config) == ()
