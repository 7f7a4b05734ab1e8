"""Which checkpoint each scorer would have chosen of a run, why, and what that choice cost."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from podproof.monitor.errors import BadHistory
from podproof.monitor.history import History, is_evaluation
from podproof.monitor.scorers import Scorer
from podproof.runtime.errors import Problem
from podproof.runtime.readings import usable_loss
from podproof.runtime.scores import Score

# Outside of these, four decimals say too little or too much.
_SMALL, _LARGE = 1e-3, 1e6


@dataclass(frozen=True)
class HeldOut:
    """A metric no scorer saw, and its direction, which is never guessed."""

    metric: str
    higher_is_better: bool = False


@dataclass(frozen=True)
class Evaluated:
    """One evaluation as every scorer met it; an absent `eval_loss` cannot be used."""

    step: int
    eval_loss: float | None
    held_out: float | None = None


@dataclass(frozen=True)
class Choice:
    """What one scorer chose of one run, and in words why.

    `score` and `margin` (to the `runner_up`, the best of the other steps) are lower is better and
    in the scorer's own unit; the margin is negative when the objective passed over a better score.
    `scores` has one value for each evaluation, infinite where unusable, and is empty when the
    scorer failed, which `failure` then tells. `regret` is how much better the best held-out value
    was: 0 for the best choice, never negative, in the metric's unit.
    """

    scorer: str
    why: str
    step: int | None = None
    score: float | None = None
    eval_loss: float | None = None
    components: tuple[tuple[str, float], ...] = ()
    runner_up: int | None = None
    margin: float | None = None
    held_out: float | None = None
    regret: float | None = None
    scores: tuple[float, ...] = ()
    failure: str | None = None


@dataclass(frozen=True)
class Rescored:
    """A run, its evaluations, and the choices of the scorers asked.

    `best_held_out` is the step with the best held-out value, the earliest on a tie.
    """

    name: str
    source: str
    evaluations: tuple[Evaluated, ...]
    train_losses: tuple[tuple[int, float], ...]
    choices: tuple[Choice, ...]
    held_out: HeldOut | None = None
    best_held_out: int | None = None
    notes: tuple[str, ...] = ()


def rescore_all(
    histories: Sequence[History], scorers: Sequence[Scorer], held_out: HeldOut | None = None
) -> tuple[Rescored, ...]:
    """Replay the scorers over every run; raise BadHistory with the problems of all of them."""
    runs: list[Rescored] = []
    problems: list[Problem | str] = []
    for history in histories:
        try:
            runs.append(rescore(history, scorers, held_out))
        except BadHistory as error:
            problems += error.problems
    if problems:
        # The runs of one file mostly lack the same metric.
        raise BadHistory(*dict.fromkeys(problems))
    return tuple(runs)


def rescore(
    history: History, scorers: Sequence[Scorer], held_out: HeldOut | None = None
) -> Rescored:
    """Replay the scorers over the run.

    Raises BadHistory when a held-out metric is asked for that the run does not have.
    """
    evaluations = _evaluations(history, held_out)
    best = _best_held_out(evaluations, held_out)
    if held_out is not None and best is None:
        raise BadHistory(_no_such_metric(history, held_out))
    trained = [
        (entry["step"], usable_loss(entry["loss"])) for entry in history.log if "loss" in entry
    ]
    return Rescored(
        name=history.name,
        source=history.source,
        evaluations=evaluations,
        train_losses=tuple((step, loss) for step, loss in trained if loss is not None),
        choices=tuple(_choose(history, scorer, evaluations, best) for scorer in scorers),
        held_out=held_out,
        best_held_out=None if best is None else best.step,
        notes=history.notes,
    )


def amount(value: float, *, sign: bool = False) -> str:
    """Return a loss or score as people read it: four decimals, or four digits where those fail.

    >>> amount(4.25), amount(0.00001234), amount(1e300), amount(0.0, sign=True)
    ('4.2500', '1.234e-05', '1e+300', '+0.0000')
    """
    plus = "+" if sign else ""
    is_plain = value == 0.0 or _SMALL <= abs(value) < _LARGE
    return format(value, f"{plus}.4f" if is_plain else f"{plus}.4g")


def _evaluations(history: History, held_out: HeldOut | None) -> tuple[Evaluated, ...]:
    metric = "" if held_out is None else held_out.metric
    return tuple(
        Evaluated(
            step=entry["step"],
            eval_loss=usable_loss(entry["eval_loss"]),
            held_out=usable_loss(history.metrics.get(entry["step"], {}).get(metric)),
        )
        for entry in history.log
        if is_evaluation(entry)
    )


def _best_held_out(evaluations: Sequence[Evaluated], held_out: HeldOut | None) -> Evaluated | None:
    sign = -1.0 if held_out is not None and held_out.higher_is_better else 1.0
    measured = [
        (sign * e.held_out, at, e)
        for at, e in enumerate(evaluations)
        if e.held_out is not None and e.step > 0
    ]
    return min(measured)[2] if measured else None


def _choose(
    history: History, scorer: Scorer, evaluations: Sequence[Evaluated], best: Evaluated | None
) -> Choice:
    try:
        _, scores = scorer.replay(history.log)
    except Exception as error:
        # seed_v1 overflows on a large loss, and a formula of somebody's own may do anything.
        failure = f"{type(error).__name__}: {error}"
        return Choice(scorer.name, f"it raised {failure}, and so chose nothing", failure=failure)
    values = tuple(score.value for score in scores)
    chosen = scorer.choose(scores)
    if chosen is None:
        why = f"none of its {len(scores)} evaluations can be used"
        return Choice(scorer.name, why, scores=values)
    usable = [score for score in scores if _is_usable(score)]
    others = [score for score in usable if score.step != chosen.step]
    runner_up = min(others, key=_value, default=None)
    evaluated = evaluations[scores.index(chosen)]
    return Choice(
        scorer=scorer.name,
        why=_why(chosen, runner_up, scores),
        step=chosen.step,
        score=chosen.value,
        eval_loss=evaluated.eval_loss,
        components=tuple(chosen.components.items()),
        runner_up=None if runner_up is None else runner_up.step,
        margin=None if runner_up is None else runner_up.value - chosen.value,
        held_out=evaluated.held_out,
        regret=_regret(evaluated, best),
        scores=values,
    )


def _value(score: Score) -> float:
    return score.value


def _regret(chosen: Evaluated, best: Evaluated | None) -> float | None:
    if best is None or best.held_out is None or chosen.held_out is None:
        return None
    return abs(chosen.held_out - best.held_out)


def _is_usable(score: Score) -> bool:
    """Tell whether there is a checkpoint and a score; before the first step there is none."""
    return math.isfinite(score.value) and score.step > 0


def _why(chosen: Score, runner_up: Score | None, scores: Sequence[Score]) -> str:
    usable = [score for score in scores if _is_usable(score)]
    unusable = len(scores) - len(usable)
    left_out = f" ({unusable} more cannot be used)" if unusable else ""
    parts = " ".join(
        f"{name} {amount(value, sign=True)}" for name, value in chosen.components.items()
    )
    best, count = min(usable, key=_value), f"{len(usable)}{left_out}"
    if chosen.value > best.value:
        score = f"score {amount(chosen.value)} = {parts}, {_why_by_margin(chosen, best)}"
        words = [f"{score}; lowest score of {count} is {amount(best.value)}"]
    else:
        words = [f"lowest score of {count}: {amount(chosen.value)} = {parts}"]
        words += [] if runner_up is None else [_why_not(chosen, runner_up)]
    lowest = min(usable, key=_loss)
    if _loss(lowest) < _loss(chosen):
        words.append(_why_overruled(chosen, lowest))
    return "; ".join(words)


def _loss(score: Score) -> float:
    return math.inf if score.loss is None else score.loss


def _why_by_margin(chosen: Score, best: Score) -> str:
    of_chosen, of_best = (_margin(score) for score in (chosen, best))
    return f"chosen for its reward margin, {of_chosen}, where step {best.step} has {of_best}"


def _margin(score: Score) -> str:
    return "none" if score.measures.margin is None else amount(score.measures.margin)


def _why_not(chosen: Score, runner_up: Score) -> str:
    margin = runner_up.value - chosen.value
    if margin == 0.0:
        return f"step {runner_up.step} scores the same, and the earlier is kept"
    parts = _differences(runner_up, chosen)
    return f"next is step {runner_up.step}, {amount(margin)} behind ({parts})"


def _why_overruled(chosen: Score, rival: Score) -> str:
    lowest = (
        f"step {rival.step} has the lowest eval loss, by {amount(_loss(chosen) - _loss(rival))}"
    )
    worse = {
        name: value - chosen.components.get(name, 0.0)
        for name, value in rival.components.items()
        if value > chosen.components.get(name, 0.0)
    }
    if rival.value <= chosen.value:
        return lowest
    parts = " and ".join(f"{name} ({amount(by, sign=True)})" for name, by in worse.items())
    return f"{lowest}, and lost by its {parts or 'score'}"


def _differences(other: Score, chosen: Score) -> str:
    parts = {
        name: value - chosen.components.get(name, 0.0) for name, value in other.components.items()
    }
    return (
        ", ".join(f"{name} {amount(by, sign=True)}" for name, by in parts.items() if by)
        or "in the last digits"
    )


def _no_such_metric(history: History, held_out: HeldOut) -> Problem:
    names = sorted({name for numbers in history.metrics.values() for name in numbers} - {"step"})
    close = difflib.get_close_matches(held_out.metric, names, n=1)
    way_out = f"did you mean {close[0]}?" if close else f"it has {', '.join(names)}"
    what = f"no evaluation has a number called {held_out.metric!r}"
    return Problem(history.source, what, way_out)
