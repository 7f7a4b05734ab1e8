"""A budget of processor time: code that never ends is cut off, also when it keeps exceptions."""

import contextlib

import pytest

from podproof.harness.budget import OverBudgetError, within


def _never_end() -> None:
    while True:
        pass


def _keep_one_and_never_end() -> None:
    with contextlib.suppress(OverBudgetError):
        _never_end()
    _never_end()


def test_a_loop_without_end_is_cut_off() -> None:
    with pytest.raises(OverBudgetError), within(0.05):
        _never_end()


def test_code_that_keeps_the_first_cut_to_itself_is_cut_off_again() -> None:
    with pytest.raises(OverBudgetError), within(0.05):
        _keep_one_and_never_end()


def test_what_ends_in_time_is_let_be() -> None:
    with within(60.0):
        total = sum(range(10))

    assert total == 45
