"""Say in one word where the training loss is going, whatever its scale.

The last logged losses are divided by their own typical size, a line is laid through them that
single spikes cannot tilt (Theil-Sen: the median of all pairwise slopes), and its rise over the
window is held against the scatter around it. Nothing here knows what a "good" loss is, so the
same run with its losses doubled gets the same word.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median, median_low

from podproof.runtime.plan import TrendPlan
from podproof.runtime.values import changed

# The usual window, 20 logged losses (TrendPlan): the rise of the line over 20 points is known to
# about 0.8 of the scatter of one loss, over 10 points to 1.1; a longer window answers later.

# With 5 points noise alone got a wrong word in 1 window of 8, with 6 in 1 of 16.
TREND_FEWEST_LOSSES = 6

# A line that moves less than 1 % of the loss over the whole window is called flat: true or not,
# nobody would act on it.
TREND_SMALLEST_CHANGE = 0.01

# How many standard errors the rise must exceed. On pure normal noise 3 gives a wrong "improving"
# or "degrading" in 1.5 windows of 100 (20 points) and 3 of 100 (10 points); 2 gave 11 of 100.
TREND_STANDARD_ERRORS = 3.0

# The newest loss is called far above the best one when the distance exceeds the window's typical
# loss itself, and this many times the scatter, so that a noisy batch of 1 is not a divergence.
TREND_FAR_IN_LEVELS = 1.0
TREND_FAR_IN_NOISE = 8.0

# The median absolute deviation of a normal variable times this is its standard deviation.
_TREND_MAD_TO_SIGMA = 1.4826

# Losses this many times their typical size are all the same to us; keeps the sums finite.
_TREND_LARGEST_RATIO = 1e12


class TrendWord(StrEnum):
    """Where the training loss is going."""

    IMPROVING = "improving"
    FLAT = "flat"
    DEGRADING = "degrading"
    DIVERGING = "diverging"
    NOT_ENOUGH_DATA = "not_enough_data"


@dataclass(frozen=True)
class LossTrend:
    """The last finite logged losses, oldest first, and what was seen of the others.

    Feed it each logged loss once: a loss repeated at every step between two logs would look flat.
    With `is_counting` every log is described: `in_a_row` is how many logs in a row got `word`.
    """

    losses: tuple[float, ...] = ()
    is_newest_finite: bool = True
    nonfinite_count: int = 0
    window: int = TrendPlan.window
    is_counting: bool = False
    word: TrendWord = TrendWord.NOT_ENOUGH_DATA
    in_a_row: int = 0


@dataclass(frozen=True)
class _TrendLine:
    """The line through the window, all in units of the window's typical loss.

    `rise` is last point minus first on the line, `noise` the standard deviation around it, `jump`
    the distance of the newest loss from the best one.
    """

    count: int
    rise: float
    noise: float
    jump: float


def trend_of(plan: TrendPlan) -> LossTrend:
    """Return the trend before the first loss; it describes every log only if the plan may stop."""
    is_counting = plan.stop_on_divergence is not None or plan.stop_on_plateau is not None
    return LossTrend(window=plan.window, is_counting=is_counting)


def observe_loss(trend: LossTrend, loss: float | None) -> LossTrend:
    """Return the trend with one more logged loss; NaN and infinities are counted, not kept."""
    trend = _with_losses(trend, (loss,))
    if not trend.is_counting:
        return trend
    word = describe_trend(trend)
    return changed(trend, word=word, in_a_row=trend.in_a_row + 1 if word is trend.word else 1)


def observe_losses(trend: LossTrend, losses: Sequence[float | None]) -> LossTrend:
    """Return the trend with these logged losses, oldest first; at once where none is described.

    None is a loss that was no number: as bad a sign as NaN.
    """
    if not trend.is_counting:
        return _with_losses(trend, losses)
    for loss in losses:
        trend = observe_loss(trend, loss)
    return trend


def _with_losses(trend: LossTrend, losses: Sequence[float | None]) -> LossTrend:
    kept, is_finite, count = [*trend.losses], trend.is_newest_finite, trend.nonfinite_count
    for loss in losses:
        is_finite = False
        if loss is not None and math.isfinite(loss):
            is_finite = True
            kept.append(loss)
        else:
            count += 1
    newest = tuple(kept[-trend.window :])
    return changed(trend, losses=newest, is_newest_finite=is_finite, nonfinite_count=count)


def is_trend_over(trend: LossTrend, word: TrendWord, logs: int | None) -> bool:
    """Tell whether at least so many logs in a row got this word; never when `logs` is None."""
    return logs is not None and trend.word is word and trend.in_a_row >= logs


def describe_trend(trend: LossTrend) -> TrendWord:
    """Return the word for the window; about 0.1 ms for 20 losses, so ask at evaluations only.

    `diverging` comes first: the newest loss is not finite, or is above the window's best by more
    than the typical loss and by more than 8 standard deviations of the scatter. Multiplying every
    loss by a positive power of two changes nothing (short of overflow and subnormal numbers).

    >>> trend = LossTrend()
    >>> for loss in (3.0, 2.8, 2.5, 2.4, 2.2, 2.1):
    ...     trend = observe_loss(trend, loss)
    >>> str(describe_trend(trend)), str(describe_trend(observe_loss(trend, math.nan)))
    ('improving', 'diverging')
    """
    if not trend.is_newest_finite:
        return TrendWord.DIVERGING
    if len(trend.losses) < TREND_FEWEST_LOSSES:
        return TrendWord.NOT_ENOUGH_DATA
    line = _trend_line(_trend_ratios(trend.losses))
    if line.jump > max(TREND_FAR_IN_LEVELS, TREND_FAR_IN_NOISE * line.noise):
        return TrendWord.DIVERGING
    if abs(line.rise) <= _trend_smallest_rise(line):
        return TrendWord.FLAT
    return TrendWord.IMPROVING if line.rise < 0 else TrendWord.DEGRADING


def _trend_ratios(losses: tuple[float, ...]) -> list[float]:
    """Return the losses over their median size; over the largest one when that median is 0."""
    sizes = [abs(loss) for loss in losses]
    # The lower median is one of the losses, so it scales with them exactly and cannot overflow.
    level = median_low(sizes) or max(sizes)
    if level == 0.0:
        return [0.0 for _ in losses]
    most = _TREND_LARGEST_RATIO
    return [max(-most, min(most, loss / level)) for loss in losses]


def _trend_line(ratios: list[float]) -> _TrendLine:
    """Lay the Theil-Sen line through equally spaced points and measure the scatter around it."""
    count = len(ratios)
    slope = median(
        (ratios[later] - ratios[earlier]) / (later - earlier)
        for earlier in range(count)
        for later in range(earlier + 1, count)
    )
    residuals = [ratio - slope * index for index, ratio in enumerate(ratios)]
    middle = median(residuals)
    noise = _TREND_MAD_TO_SIGMA * median(abs(residual - middle) for residual in residuals)
    return _TrendLine(count, slope * (count - 1), noise, ratios[-1] - min(ratios))


def _trend_smallest_rise(line: _TrendLine) -> float:
    """Return the rise below which the line is flat.

    A straight line through n equally spaced points has a slope known to
    noise * sqrt(12 / (n * (n**2 - 1))); times n - 1 that is the uncertainty of the rise. Few
    points understate their own scatter, more so than n / (n - 2) tells; its square was measured
    to keep wrong words rare from 6 points on.
    """
    count = line.count
    standard_error = line.noise * (count - 1) * math.sqrt(12 / (count * (count**2 - 1)))
    few_points = (count / (count - 2)) ** 2
    return max(TREND_SMALLEST_CHANGE, TREND_STANDARD_ERRORS * few_points * standard_error)
