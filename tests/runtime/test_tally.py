"""A tally of rows: a share of bad ones is dropped and told, more is refused."""

from hypothesis import given, strategies as st

from podproof.runtime.errors import Problem
from podproof.runtime.rows import BadRow, Row
from podproof.runtime.tally import RowTally


def tally_of(good: int, bad: int) -> RowTally:
    tally = RowTally("f")
    for number in range(good + bad):
        row = Row(f"f:{number}", {"text": "t"})
        tally.add(row if number >= bad else BadRow((Problem(f"f:{number}", "text is empty"),)))
    return tally


def test_bad_rows_up_to_the_share_are_dropped_with_a_notice() -> None:
    problems, notices = tally_of(good=95, bad=5).judged(0.05)

    assert problems == ()
    assert notices == (
        "f: 5 of 100 rows cannot be trained on (5 x text is empty), and are dropped",
    )


def test_bad_rows_beyond_the_share_are_refused_with_examples_and_their_number() -> None:
    problems, notices = tally_of(good=94, bad=6).judged(0.05)

    assert notices == ()
    assert [problem.where for problem in problems] == ["f:0", "f:1", "f:2", "f:3", "f:4", "f"]
    assert problems[-1].what == "6 of 100 rows cannot be trained on (6 x text is empty)"
    assert "data.max_bad_fraction" in problems[-1].way_out


def test_good_rows_need_no_word() -> None:
    assert tally_of(good=3, bad=0).judged(0.0) == ((), ())


@given(st.integers(0, 50), st.integers(1, 50), st.floats(0, 0.999))
def test_a_share_below_one_never_drops_everything(good: int, bad: int, most: float) -> None:
    problems, notices = tally_of(good, bad).judged(most)

    assert bool(problems) != bool(notices)
    assert problems or good


def test_kinds_that_differ_in_numbers_and_names_are_one_kind() -> None:
    tally = RowTally("f")
    for number in range(300):
        what = f"messages[{number}] has the role 'bot{number}'"
        tally.add(BadRow((Problem(f"f:{number}", what),)))

    assert tally.kinds == {"messages[*] has the role *": 300}
    assert len(tally.shown) == 5


def test_the_memory_of_a_tally_is_bounded_however_many_kinds_there_are() -> None:
    tally = RowTally("f")
    for number in range(1000):
        tally.add(BadRow((Problem("f:1", "x" * number),)))

    assert (len(tally.kinds), len(tally.shown)) == (101, 20)
