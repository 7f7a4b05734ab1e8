"""Where a train loss is going, worked out a second time, and when a run must end for it.

Where a number lies so near its threshold that the last bit decides, the answer is None: either
word is right then.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from statistics import median

from podproof.harness.expected import Line, Scored, since_best
from podproof.runtime.plan import ScorerPlan

# Train losses and the word they must get. The last ones lie on a threshold, in numbers that floats
# hold exactly: a distance of one whole level, 8 times the scatter, a rise of 1 %.
KNOWN_WORDS: Sequence[tuple[tuple[float, ...], str]] = (
    ((), "not_enough_data"),
    ((3.0, 2.8, 2.5, 2.4, 2.2), "not_enough_data"),
    ((3.0, 2.8, 2.5, 2.4, 2.2, 2.1), "improving"),
    ((2.1, 2.2, 2.4, 2.5, 2.8, 3.0), "degrading"),
    ((2.0, 2.0, 2.0, 2.0, 2.0, 2.0), "flat"),
    ((0.0, 0.0, 0.0, 0.0, 0.0, 0.0), "flat"),
    ((2.0, 2.1, 1.9, 2.1, 1.9, 2.0), "flat"),
    ((2.0, 2.0, 2.0, 2.0, 2.0, math.nan), "diverging"),
    ((math.nan, 2.0, 2.0, 2.0, 2.0, 2.0), "not_enough_data"),
    ((math.nan, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0), "flat"),
    ((2.0, 2.0, 2.0, 2.0, 2.0, 9.0), "diverging"),
    ((2.0, 2.0, 2.0, 9.0, 2.0, 2.0), "flat"),
    ((1.0, 1.0, 1.0, 1.0, 1.0, 2.0), "flat"),
    ((1.0, 1.0, 1.0, 1.0, 1.0, 2.125), "diverging"),
    ((0.0, 0.0, 0.0, 0.0, 0.0, 1.0), "flat"),
    ((-1.0, *[0.0] * 10, 1.0), "diverging"),
)


def graded_losses() -> Iterator[tuple[float, ...]]:
    """Yield runs of train losses from still to steep, and from a small last jump to a large one.

    Between two of them lies every threshold of the trend, within 5 %.
    """
    wave = (0.0, 0.05, -0.02, 0.03, -0.06, 0.01, 0.04, -0.03, -0.05, 0.02)
    for count in (6, 9):
        rest = [2.0 + wave[place % len(wave)] for place in range(count)]
        for power in range(48):
            slope = 0.002 * 1.1**power
            yield tuple(loss - slope * place for place, loss in enumerate(rest))
            yield tuple(2.0 + slope * place for place in range(count))
            yield (*rest[:-1], 2.0 + 10 * slope)
            yield (*(12 * loss - 22.0 for loss in rest[:-1]), 2.0 + 40 * slope)


def expected_word(losses: Sequence[float], window: int) -> str | None:
    """Return the word for these logged losses, oldest first; those not finite are among them."""
    if losses and not math.isfinite(losses[-1]):
        return "diverging"
    kept = [loss for loss in losses if math.isfinite(loss)][-window:]
    if len(kept) < 6:  # noqa: PLR2004 - as documented
        return "not_enough_data"
    rise, scatter, jump = _line_through(_in_levels(kept))
    far = max(1.0, 8.0 * scatter)
    smallest = _smallest_rise(len(kept), scatter)
    if _is_near(jump, far) or _is_near(abs(rise), smallest):
        return None
    moving = "improving" if rise < 0 else "degrading"
    return "diverging" if jump > far else "flat" if abs(rise) < smallest else moving


def _in_levels(losses: Sequence[float]) -> list[float]:
    sizes = sorted(map(abs, losses))
    level = sizes[(len(sizes) - 1) // 2] or sizes[-1] or 1.0
    return [min(max(loss / level, -1e12), 1e12) for loss in losses]


def _line_through(points: Sequence[float]) -> tuple[float, float, float]:
    """Return the rise of the Theil-Sen line, the scatter around it, and the newest's distance."""
    pairs = combinations(enumerate(points), 2)
    slope = median((high - low) / (late - early) for (early, low), (late, high) in pairs)
    rests = [point - slope * place for place, point in enumerate(points)]
    middle = median(rests)
    scatter = 1.4826 * median(abs(rest - middle) for rest in rests)
    return slope * (len(points) - 1), scatter, points[-1] - min(points)


def _smallest_rise(count: int, scatter: float) -> float:
    error = scatter * (count - 1) * math.sqrt(12 / (count**3 - count))
    return max(0.01, 3.0 * error * (count / (count - 2)) ** 2)


def _is_near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


def train_losses_of(lines: Sequence[Line]) -> list[float]:
    """Return the logged train losses; NaN where a log had none that can be used."""
    losses = [line.loss for line in lines if line.kind == "train"]
    return [math.nan if loss is None else loss for loss in losses]


def allowed_stops(
    words: Sequence[str | None], scores: Sequence[Scored], plan: ScorerPlan
) -> frozenset[str | None]:
    """Return the reasons that may be given for ending the run now; None is to go on.

    `words` are those of every train log so far, `scores` all scores. There is more than one answer
    only where a word is open.
    """
    patience = plan.early_stopping.patience
    waited = since_best(scores, plan.early_stopping.min_delta)
    answers = (
        ("diverging", _is_in_a_row(words, "diverging", plan.trend.stop_on_divergence)),
        ("early_stopping", patience is not None and waited >= patience),
        ("plateau", _is_in_a_row(words, "flat", plan.trend.stop_on_plateau)),
    )
    allowed: set[str | None] = set()
    for reason, is_due in answers:
        allowed |= set() if is_due is False else {reason}
        if is_due:
            return frozenset(allowed)
    return frozenset(allowed | {None})


def _is_in_a_row(words: Sequence[str | None], word: str, logs: int | None) -> bool | None:
    """Tell whether the last so many logs got this word; None: they may have."""
    if logs is None or len(words) < logs:
        return False
    last = words[-logs:]
    if any(found not in {word, None} for found in last):
        return False
    return None if None in last else True
