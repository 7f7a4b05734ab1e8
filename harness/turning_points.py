"""A formula of the user's, asked where it changes its mind: at the numbers in its own code.

No example that is drawn at large falls between 1.1 and 1.2, or on step 700. A formula that does
something there says so in its code; so the numbers written there are tried as losses, margins,
accuracies and steps, each with its nearest neighbours. Raised is AssertionError, or what the
formula raises.
"""

import dis
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from types import CodeType
from typing import Any

from podproof.harness.drawn import Round, Scores, Subject, scored_losses
from podproof.harness.reach import reached_functions
from podproof.runtime.plan import ScorerName

# As many numbers of a formula, the smallest first, as there is time for.
_MOST = 10
_LARGEST = 1e9
# The first loss of the runs here, and so their scale.
_SCALE = 2.0
_USUAL = (0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 5.0)
_SLACK = _SMALL = 1e-9
# Steps that real runs come to, whatever the formula says of steps.
_STEPS = tuple(10**power + more for power in range(1, 7) for more in (0, 1))


def neutral_where_it_turns(subject: Subject) -> None:
    """Ask that eval losses alone are the scores there, at any step and distance of steps."""
    numbers = _numbers_of(subject)
    for loss in _losses(numbers):
        _ask_neutral(subject, (8, 16), (loss, loss))
        _ask_neutral(subject, (8, 16), (_SCALE, loss))
    steps = _steps(numbers)
    _ask_neutral(subject, steps, [_SCALE] * len(steps))
    for step in steps:
        _ask_neutral(subject, (step, step + 1), (_SCALE, 1.0))
        _ask_neutral(subject, (1, 1 + step), (_SCALE, 1.0))


def _ask_neutral(subject: Subject, steps: Sequence[int], losses: Sequence[float]) -> None:
    rounds = [Round([], loss) for loss in losses]
    values = subject.score_at(steps, rounds).values
    scored = tuple(scored_losses(rounds, subject.plan))
    assert values == scored, f"evals {scored} at steps {tuple(steps)} scored {values}"


def monotone_where_it_turns(subject: Subject) -> None:
    """Ask that a lower eval loss never scores worse there, whatever else was measured."""
    numbers = _numbers_of(subject)
    losses = _losses(numbers)
    for other in _measured(numbers):
        rounds = [other._replace(loss=loss) for loss in losses]
        values = [_after_the_first(subject, each).values[-1] for each in rounds]
        for (low, low_score), (high, high_score) in pairwise(zip(losses, values, strict=True)):
            assert low_score <= high_score + _SLACK, (
                f"{low} scored {low_score}, {high} scored {high_score}, with {other}"
            )


def pareto_where_it_turns(subject: Subject) -> None:
    """Ask that what is better in one measurement, all else equal, is never scored worse there.

    Else a loss that is worse by next to nothing would make a checkpoint win that is worse in both.
    """
    numbers = _numbers_of(subject)
    for worse, better in pairwise(_measured(numbers)):
        if _kind(worse) == _kind(better):
            one, other = (_after_the_first(subject, each).values[-1] for each in (worse, better))
            assert other <= one + _SLACK, f"{better} scored {other}, {worse} scored {one}"
    better = Round([], 1.0, 1.0, 0.5)
    # With redrawn_eval a loss below the average so far is an improvement.
    as_scored = list(scored_losses([Round([], _SCALE), better], subject.plan))[-1]
    worse = Round([], max(1.0, as_scored) + 1e-6, 0.5, 0.25)
    for step in _steps(numbers):
        _ask_pareto(subject, (1, 2, step + 2), better, worse)
        _ask_pareto(subject, (1, step + 1, step + 2), better, worse)


def _ask_pareto(subject: Subject, steps: Sequence[int], good: Round, bad: Round) -> None:
    scores = subject.score_at(steps, [Round([], _SCALE), good, bad])
    assert not scores.is_best[-1], f"{bad} replaced {good} at {steps}: {scores.values[1:]}"


def _after_the_first(subject: Subject, last: Round) -> Scores:
    return subject.score_at((8, 16), [Round([], _SCALE), last])


def _measured(numbers: Sequence[float]) -> tuple[Round, ...]:
    """Return rounds of one loss in which one thing was measured, of each the worst first."""
    if not numbers:
        return ()
    values = _around(numbers)
    trains = [Round([value], 1.0) for value in _losses(numbers)]
    margins = [Round([], 1.0, margin=value) for value in values]
    shares = [Round([], 1.0, accuracy=value) for value in values if 0.0 <= value <= 1.0]
    return (*trains, *margins, *shares)


def _kind(each: Round) -> tuple[bool, bool, bool]:
    return bool(each.train), each.margin is not None, each.accuracy is not None


def _losses(numbers: Sequence[float]) -> tuple[float, ...]:
    return _around([*numbers, *(number * _SCALE for number in numbers)]) if numbers else ()


def _steps(numbers: Sequence[float]) -> tuple[int, ...]:
    near = {math.floor(number) + more for number in numbers for more in (-1, 0, 1, 2)}
    return tuple(sorted(step for step in {*near, *_STEPS} if step > 0)) if numbers else ()


def _around(numbers: Iterable[float]) -> tuple[float, ...]:
    """Return each number with its nearest neighbours and what lies between two, and usual ones."""
    ordered = sorted({*numbers})
    # Zero has neighbours that no measurement is, and that overflow when something is divided.
    near = {
        math.nextafter(each, end) if each else math.copysign(_SMALL, end)
        for each in ordered
        for end in (-math.inf, math.inf)
    }
    middles = {(low + high) / 2 for low, high in pairwise(ordered)}
    return tuple(sorted({*ordered, *near, *middles, *_USUAL}))


def _numbers_of(subject: Subject) -> tuple[float, ...]:
    """Return the numbers of a formula of the user's, never none; none of a scorer of ours.

    Those that ship are held against what is documented of them.
    """
    if subject.plan.name is not ScorerName.OWN:
        return ()
    found = {0.0, 1.0}
    for function in reached_functions([subject.code.SCORERS[subject.own_plan.name].components]):
        named = [function.__globals__.get(name) for name in function.__code__.co_names]
        found |= set(_numbers([*_constants(function.__code__), *named]))
    return tuple(sorted(found, key=lambda number: (abs(number), number))[:_MOST])


def _constants(code: CodeType) -> Iterator[Any]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in {"LOAD_CONST", "LOAD_SMALL_INT", "RETURN_CONST"}:
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _constants(constant)


def _numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list | frozenset | set):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST:
        yield float(value)
