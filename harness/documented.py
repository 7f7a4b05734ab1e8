"""A scorer's code held against what is documented of it, on logs of any kind."""

import dataclasses
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from hypothesis import given, strategies as st

from podproof.harness.asking import attack
from podproof.harness.drawn import HOSTILE, SHARE, USUAL, Log, Subject
from podproof.harness.expected import (
    ExpectedScore,
    Line,
    Scored,
    best_of,
    expected_bound,
    expected_choice,
    expected_score,
    is_scored,
    line_of,
    since_best,
)
from podproof.harness.expected_trend import (
    KNOWN_WORDS,
    allowed_stops,
    expected_word,
    graded_losses,
    train_losses_of,
)
from podproof.runtime.plan import ScorerPlan, TrendPlan

# Plans beside the script's own: code that its plan does not reach rides along all the same.
NEIGHBOURS: tuple[Mapping[str, Any], ...] = (
    {},
    {"name": "robust", "gap_weight": 0.5, "gap_limit": 0.25, "train_ema_alpha": 0.25},
    {"name": "eval_loss", "early_stopping": {"patience": 2, "min_delta": 0.25}},
    {"name": "robust", "early_stopping": {"patience": 1}},
    {"name": "eval_loss", "objective": "reward", "reward_tolerance": 0.25},
    {"name": "robust", "objective": "accuracy", "accuracy_weight": 0.75},
    {"name": "robust", "redrawn_eval": True, "eval_ema_alpha": 0.25},
    {"name": "eval_loss", "trend": {"window": 6, "stop_on_divergence": 1}},
    {"name": "eval_loss", "trend": {"window": 7, "stop_on_plateau": 3}},
    {
        "name": "eval_loss",
        "early_stopping": {"patience": 1},
        "trend": {"window": 6, "stop_on_divergence": 2, "stop_on_plateau": 1},
    },
)

# Train and eval losses that rise, fall, stay, and fall again.
_ORIGINAL_LOG: Log = [
    entry
    for step, (train, loss) in enumerate(
        [(2.5, 2.0), (1.0, 3.5), (2.25, 1.0), (0.5, 1.0), (0.25, 0.75), (0.75, 0.5), (0.5, 0.0)], 1
    )
    for entry in ({"eval_loss": loss, "step": step}, {"loss": train, "step": step})
]

_LOSS = USUAL | st.sampled_from([1.0, 1.25, 0.0, -1.0, math.nan])
_ANY = _LOSS | HOSTILE
_STEP = st.fixed_dictionaries({"step": st.integers(0, 4)})
_SIGNS = {
    "grad_norm": _ANY,
    "entropy": _ANY,
    "nll_loss": _ANY,
    "nonfinite_microbatches": st.sampled_from([0, 1, 1.5, True, "2", None]),
    "rewards/margins": _ANY,
}
_MEASURES = {
    "eval_rewards/margins": _LOSS,
    "eval_rewards/accuracies": SHARE | HOSTILE,
    "eval_mean_token_accuracy": SHARE | st.sampled_from([-0.5, 1.5]),
}
_SETS = {
    f"eval_{name}{what}": _ANY
    for name in ("a_", "b_", "_", "")
    for what in ("loss", "runtime", "samples_per_second")
}
_TRAIN = st.fixed_dictionaries({"loss": _LOSS})
_ODD_TRAIN = st.fixed_dictionaries({"loss": _ANY}, optional={**_SIGNS, "train_runtime": _LOSS})
_EVALUATION = st.fixed_dictionaries({"eval_loss": _LOSS}, optional=_MEASURES)
_ODD = st.fixed_dictionaries({}, optional={**_SETS, **_MEASURES, "train_loss": _LOSS, "loss": _ANY})


@st.composite
def _logs(draw: st.DrawFn) -> Log:
    """Draw a run as a trainer logs it, with now and then a log as none should be."""
    usual = draw(st.lists(_TRAIN | _EVALUATION, max_size=12))
    odd = draw(st.lists(_ODD_TRAIN | _EVALUATION | _ODD, max_size=4))
    steps = draw(st.integers(1, 3))
    log = [{**entry, "step": place // steps} for place, entry in enumerate([*usual, *odd])]
    return log if draw(st.booleans()) else [{**entry, **draw(_STEP)} for entry in log]


def documented(subject: Subject, examples: int) -> None:
    """Ask that logs are read, scored, called by a word, and ended for as documented."""
    vectors = subject.code.failed_vectors()
    assert not vectors, f"known scores: {vectors[0]}"
    # The code is asked with the usual window, whatever the plan has.
    words = _known_words(TrendPlan().window)
    called = [(losses, _word(subject.code, losses), word) for losses, word in words]
    wrong = [(losses, found, word) for losses, found, word in called if found != word]
    assert not wrong, "train losses {} are called {}, not {}".format(*wrong[0])
    subjects = [subject.neighbour(fields) for fields in NEIGHBOURS]
    original = subject.neighbour({"name": "seed_v1"})
    for asked in (*subjects, original):
        bound, expected = subject.code.score_bound(asked.own_plan), expected_bound(asked.plan)
        assert expected in {bound, None}, f"bound {bound} is stated, not {expected}"
    soft = [type(value).__name__ for value in _values_of(subject) if not _is_frozen(value)]
    assert not soft, f"{', '.join(soft)} can be changed after it was made"
    for log, plan in _known_logs():
        for difference in _differences(subjects[plan], log):
            raise AssertionError(f"{difference}, of {log}, with {NEIGHBOURS[plan]}")
    # Only here: of a drawn loss its exp may overflow.
    for asked in (original, subject.neighbour({"name": "own"})):
        for difference in _differences(asked, _ORIGINAL_LOG):
            raise AssertionError(f"{difference}, of {_ORIGINAL_LOG}, with {asked.plan.name.value}")

    @attack(examples)
    @given(_logs(), st.sampled_from(range(len(NEIGHBOURS))))
    def check(log: Log, plan: int) -> None:
        for difference in _differences(subjects[plan], log):
            raise AssertionError(f"{difference}, with {NEIGHBOURS[plan] or 'the plan as it is'}")

    check()


def _values_of(subject: Subject) -> Iterator[Any]:
    """Yield what the fold passes on; could it be changed, a later log might change a score."""
    code, plan = subject.code, subject.own_plan
    reading = code.read_log({"eval_loss": 1.0, "step": 1})
    yield from (reading, code.trend_of(plan.trend))
    yield from code.observe_log(code.ScoreState(), reading, plan)


def _is_frozen(value: Any) -> bool:
    name = dataclasses.fields(value)[0].name
    try:
        setattr(value, name, getattr(value, name))
    except dataclasses.FrozenInstanceError:
        return True
    return False


def _known_words(window: int) -> Iterator[tuple[Sequence[float], str]]:
    yield from KNOWN_WORDS
    graded = [(losses, expected_word(losses, window)) for losses in graded_losses()]
    yield from [(losses, word) for losses, word in graded if word is not None]


def _known_logs() -> Iterator[tuple[Log, int]]:
    """Yield logs that few draws would come upon, each with the place of a plan in NEIGHBOURS."""
    stopping = [place for place, fields in enumerate(NEIGHBOURS) if "trend" in fields]
    for losses, _ in KNOWN_WORDS:
        longer = [*losses, *losses[-1:], *losses[-1:]]
        yield from (([{"loss": loss} for loss in longer], plan) for plan in stopping)
    for sign in ("grad_norm", "entropy", "nll_loss", "nonfinite_microbatches"):
        yield [{"loss": 1.0, sign: math.inf}, {"loss": 1.0, sign: 0.0}, {"loss": 1.0, sign: 1}], 1
    yield [{"epoch": 1.0}, {"loss": 1.0, "step": "x"}, {"eval_loss": 1.0, "step": 2.5}], 0
    for share in (1.5, -0.5, 1.0, 0.0):
        yield [{"eval_loss": 1.0, "eval_mean_token_accuracy": share}], 5
    margins = enumerate([0.0, 0.5, -0.5, 0.0], 1)
    reward = [{"eval_loss": 1.0, "eval_rewards/margins": at, "step": step} for step, at in margins]
    yield from ((reward[first:], 4) for first in range(len(reward)))
    yield [reward[0], {"eval_loss": 1.25, "eval_rewards/margins": 1.0, "step": 2}], 4
    yield [{"loss": -1e308}, {"eval_loss": 1.7e308}, {"eval_loss": 1.6e308}], 1
    for loss in (0.0, -1.0, 2.0):
        log = [{"loss": loss - 3.0}, {"eval_loss": loss}, {"loss": 0.5}, {"eval_loss": loss + 0.5}]
        yield from ((log, plan) for plan in range(len(NEIGHBOURS)))


def _word(code: Any, losses: Sequence[float]) -> str:
    trend = code.LossTrend()
    for loss in losses:
        trend = code.observe_loss(trend, loss)
    return str(code.describe_trend(trend).value)


def _differences(subject: Subject, log: Log) -> Iterator[str]:
    """Yield where the code's fold over a log departs from what is expected of the whole log."""
    code, plan = subject.code, subject.own_plan
    state, trend = code.ScoreState(), code.trend_of(plan.trend)
    lines: list[Line] = []
    words: list[str | None] = []
    kept: list[Any] = []
    for entry in log:
        reading = code.read_log(entry)
        lines.append(line_of(entry))
        yield from _misread(reading, lines[-1])
        if lines[-1].kind == "train":
            loss = lines[-1].loss
            trend = code.observe_loss(trend, math.nan if loss is None else loss)
            words.append(expected_word(train_losses_of(lines), subject.plan.trend.window))
            yield from _miscalled(code, trend, words[-1], train_losses_of(lines))
        state, score = code.observe_log(state, reading, plan)
        kept += [] if score is None else [score]
        yield from _misscored(subject.plan, lines, state, score, [(s.step, s.value) for s in kept])
        scores = [(score.step, score.value) for score in kept]
        allowed = allowed_stops(words, scores, subject.plan)
        reason = code.stop_reason(state, trend, plan)
        if (None if reason is None else reason.value) not in allowed:
            yield f"{reason} after {len(lines)} logs, where {set(allowed)} was due"
    chosen = code.final_choice(kept, plan)
    expected = expected_choice(lines, [(score.step, score.value) for score in kept], subject.plan)
    if (None if chosen is None else chosen.step) != expected:
        yield f"ends with {chosen}, not with step {expected}"


def _misread(reading: Any, line: Line) -> Iterator[str]:
    said = (reading.kind.value, reading.step, reading.eval_set)
    if said != (line.kind, line.step, line.eval_set):
        yield f"{line} is read as {reading}"
    measured = (reading.loss, reading.measures.margin, reading.measures.accuracy)
    is_read = line.kind in {"train", "evaluation"}
    if is_read and measured != (line.loss, line.margin, line.accuracy):
        yield f"{line} is read as {reading}"


def _miscalled(
    code: Any, trend: Any, expected: str | None, losses: Sequence[float]
) -> Iterator[str]:
    found = code.describe_trend(trend).value
    if expected not in {found, None}:
        yield f"train losses {losses} are called {found}, not {expected}"
    missing = sum(not math.isfinite(loss) for loss in losses)
    if trend.nonfinite_count != missing:
        yield f"{trend.nonfinite_count} train losses that are not finite, of {losses}"


def _misscored(
    plan: ScorerPlan, lines: Sequence[Line], state: Any, score: Any, scores: Sequence[Scored]
) -> Iterator[str]:
    if (score is not None) != is_scored(lines):
        yield f"the last of {lines} " + ("is not scored" if score is None else "is scored")
        return
    if score is None:
        return
    expected = expected_score(lines, plan)
    if not expected.allows(score.value):
        yield f"score {score}, expected {expected}"
    yield from _miscomposed(score, expected) if math.isfinite(score.value) else ()
    best, before = best_of(scores), best_of(scores[:-1])
    if state.best_step != (best and best[0]) or score.is_best != (best != before):
        yield f"step {state.best_step} is called best of {scores}"
    waited = since_best(scores, plan.early_stopping.min_delta)
    if state.since_best != waited:
        yield f"{state.since_best} evaluations since the best of {scores}, not {waited}"


def _miscomposed(score: Any, expected: ExpectedScore) -> Iterator[str]:
    # In order: sum() compensates from Python 3.12 on, and then differs in the last bit.
    if reduce(operator.add, score.components.values(), 0.0) != score.value:
        yield f"components of {score} do not add up to it"
    if expected.terms is not None and score.components.keys() != expected.terms.keys():
        yield f"components of {score} are not called {', '.join(expected.terms)}"
