import math
from functools import reduce

from hypothesis import given, strategies as st

from podproof.runtime.plan import TrendPlan
from podproof.runtime.trend import (
    TREND_FEWEST_LOSSES,
    LossTrend,
    TrendWord,
    describe_trend,
    observe_loss,
    trend_of,
)

# Far from overflow and from subnormal numbers, also after scaling by 2**60.
losses = st.one_of(st.just(0.0), st.floats(1e-60, 1e60), st.floats(-1e60, -1e-60))
windows = st.lists(losses, min_size=1, max_size=40)
any_float = st.floats(allow_nan=True, allow_infinity=True)


def fed(*values: float, plan: TrendPlan = TrendPlan()) -> LossTrend:  # noqa: B008 - a frozen value
    return reduce(observe_loss, values, trend_of(plan))


def wobble(index: int) -> float:
    """Noise without a random number generator: even, between -1 and 1, no trend of its own."""
    return math.sin(index * 12.9898)


def test_fewer_losses_than_a_line_needs_are_not_enough_data() -> None:
    trend = fed(*[3.0, 2.0, 1.0, 0.9, 0.8, 0.7][: TREND_FEWEST_LOSSES - 1])

    assert describe_trend(trend) is TrendWord.NOT_ENOUGH_DATA


def test_a_loss_that_falls_by_a_hundredth_per_log_is_improving() -> None:
    trend = fed(*[2.0 - 0.02 * index for index in range(20)])

    assert describe_trend(trend) is TrendWord.IMPROVING


def test_a_fall_much_smaller_than_the_scatter_is_flat() -> None:
    trend = fed(*[2.0 - 0.001 * index + 0.3 * wobble(index) for index in range(20)])

    assert describe_trend(trend) is TrendWord.FLAT


def test_noise_at_a_high_loss_is_not_degrading() -> None:
    trend = fed(*[10.0 + 0.02 * wobble(index) for index in range(20)])

    assert describe_trend(trend) is TrendWord.FLAT


def test_a_steady_climb_is_degrading() -> None:
    trend = fed(*[1.0 + 0.02 * index for index in range(20)])

    assert describe_trend(trend) is TrendWord.DEGRADING


def test_a_single_spike_in_the_window_does_not_hide_an_improvement() -> None:
    trend = fed(
        *[2.0 - 0.02 * index for index in range(10)], 9.0, *[1.8 - 0.02 * i for i in range(9)]
    )

    assert describe_trend(trend) is TrendWord.IMPROVING


def test_a_loss_that_jumps_to_several_times_the_usual_is_diverging() -> None:
    trend = fed(*[1.0 + 0.05 * wobble(index) for index in range(19)], 4.0)

    assert describe_trend(trend) is TrendWord.DIVERGING


def test_a_loss_whose_usual_scatter_is_as_wide_as_the_jump_is_not_diverging() -> None:
    trend = fed(*[1.0 + 0.9 * wobble(index) for index in range(19)], 2.5)

    assert describe_trend(trend) is not TrendWord.DIVERGING


def test_a_newest_loss_that_is_not_finite_is_diverging_even_with_nothing_before_it() -> None:
    assert describe_trend(fed(math.nan)) is TrendWord.DIVERGING


def test_a_finite_loss_after_a_nan_is_judged_on_the_finite_losses() -> None:
    trend = fed(*[2.0 - 0.02 * index for index in range(19)], math.inf, 1.6)

    assert (describe_trend(trend), trend.nonfinite_count) == (TrendWord.IMPROVING, 1)


def test_losses_that_are_all_zero_are_flat() -> None:
    assert describe_trend(fed(*[0.0] * 20)) is TrendWord.FLAT


def test_a_negative_loss_that_falls_is_improving() -> None:
    trend = fed(*[-0.5 - 0.02 * index for index in range(20)])

    assert describe_trend(trend) is TrendWord.IMPROVING


@given(windows, st.integers(-60, 60))
def test_scaling_every_loss_by_a_power_of_two_never_changes_the_word(
    values: list[float], power: int
) -> None:
    scaled = [value * 2.0**power for value in values]

    assert describe_trend(fed(*scaled)) is describe_trend(fed(*values))


@given(st.lists(any_float, max_size=40))
def test_any_losses_get_a_word(values: list[float]) -> None:
    assert describe_trend(fed(*values)) in TrendWord


@given(st.lists(losses, min_size=TrendPlan.window, max_size=TrendPlan.window), windows)
def test_only_the_window_counts(recent: list[float], older: list[float]) -> None:
    assert describe_trend(fed(*older, *recent)) is describe_trend(fed(*recent))


@given(st.floats(1e-3, 1e3), st.floats(0.002, 0.04), st.floats(0.0, 1.0))
def test_a_falling_line_under_small_scatter_improves_and_its_mirror_does_not(
    start: float, fall: float, scatter: float
) -> None:
    line = [
        start * (1 - fall * index + 0.1 * fall * scatter * wobble(index)) for index in range(20)
    ]

    words = describe_trend(fed(*line)), describe_trend(fed(*[-loss for loss in line]))

    assert words[0] is TrendWord.IMPROVING
    assert words[1] in {TrendWord.DEGRADING, TrendWord.DIVERGING}


def test_a_shorter_window_sees_a_turn_earlier() -> None:
    falling_then_rising = [2.0 - 0.05 * index for index in range(20)]
    falling_then_rising += [1.05 + 0.02 * index for index in range(8)]

    short = fed(*falling_then_rising, plan=TrendPlan(window=8))

    assert describe_trend(short) is TrendWord.DEGRADING
    assert describe_trend(fed(*falling_then_rising)) is not TrendWord.DEGRADING


def test_no_log_is_described_unless_the_plan_may_stop() -> None:
    flat = [1.0] * 8

    assert fed(*flat).in_a_row == 0
    assert fed(*flat, plan=TrendPlan(stop_on_plateau=1)).in_a_row == 3


def test_the_count_starts_anew_with_each_word() -> None:
    trend = fed(*[1.0] * 10, math.nan, math.nan, plan=TrendPlan(stop_on_divergence=5))

    assert (trend.word, trend.in_a_row) == (TrendWord.DIVERGING, 2)
