"""What must hold of any scorer that leaves the harness, attacked by Hypothesis.

Each property is a function of the embedded code with the plan's scorer section; it raises
AssertionError with Hypothesis' smallest counterexample. The runs are derandomized: the same script
gets the same verdict on every machine. "Eval loss" is the loss as it is scored: with `redrawn_eval`
its moving average.
"""

import json
import math
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any

from hypothesis import example, given, strategies as st
from hypothesis.errors import HypothesisException

from podproof.harness.asking import attack
from podproof.harness.documented import documented
from podproof.harness.drawn import (
    ANY_ROUNDS,
    FINITE,
    SCALABLE,
    SHARE,
    USABLE_ROUNDS,
    USUAL,
    Log,
    Round,
    Subject,
    is_usable,
    log_of,
    rounds_of,
    scored_losses,
    subject_of,
)
from podproof.harness.reach import forbidden_reach
from podproof.harness.turning_points import (
    monotone_where_it_turns,
    neutral_where_it_turns,
    pareto_where_it_turns,
)
from podproof.runtime.errors import Problem
from podproof.runtime.plan import Objective, ScorerName, ScorerPlan

# Below this no sum of a few terms of a score overflows.
_FAR_FROM_OVERFLOW = 1e300


def total(subject: Subject, examples: int) -> None:
    """Ask that no log raises or scores NaN, and an unusable loss scores +inf and is never best."""

    @attack(examples)
    @given(ANY_ROUNDS)
    @example([Round([math.nan], 1.0), Round([], math.nan), Round([], None), Round([], -math.inf)])
    @example([Round([], -1e308, None, 1.0)])
    def check(rounds: list[Round]) -> None:
        scores = subject.fold_or_raise(_with_strangers(log_of(rounds), 1.0))
        assert all(value > -math.inf for value in scores.values), f"not a score: {scores.values}"
        unnamed = [name for name in scores.names if not isinstance(name, str)]
        assert not unnamed, f"the name of a term is {unnamed[0]!r}, which is no text"
        for step, (each, value) in enumerate(zip(rounds, scores.values, strict=True), 1):
            if not is_usable(each.loss):
                assert value == math.inf, f"unusable {each.loss!r} scored {value}"
                assert not scores.is_best[step - 1], f"unusable {each.loss!r} called best"
                assert scores.chosen_step != step, f"unusable {each.loss!r} chosen"
            elif abs(each.loss) < _FAR_FROM_OVERFLOW:
                assert value < math.inf, f"usable {each.loss!r} scored {value}"

    check()


def monotone(subject: Subject, examples: int) -> None:
    """Ask that, with all else equal, a lower eval loss never scores worse."""

    @attack(examples)
    @given(USABLE_ROUNDS, FINITE | USUAL)
    @example([Round([], 1.0), Round([], -1.0)], -2.0)
    def check(rounds: list[Round], other: float) -> None:
        *before, last = rounds
        low, high = sorted((last.loss, other))
        low_score = subject.score([*before, last._replace(loss=low)]).values[-1]
        high_score = subject.score([*before, last._replace(loss=high)]).values[-1]
        # The last bit may be rounded the other way; more than that no rule may take back.
        slack = 1e-12 * (abs(low_score) + abs(high_score))
        assert low_score <= high_score + slack, (
            f"{low} scored {low_score}, {high} scored {high_score}"
        )

    check()
    monotone_where_it_turns(subject)


def one_sided(subject: Subject, examples: int) -> None:
    """Ask that train loss above eval loss is never punished; a wider train-eval gap never helps."""

    @attack(examples)
    @given(FINITE, FINITE, FINITE)
    def check(eval_loss: float, one: float, other: float) -> None:
        low, high = sorted((one, other))
        alone = subject.score([Round([], eval_loss)]).values[-1]
        at_low = subject.score([Round([low], eval_loss)]).values[-1]
        at_high = subject.score([Round([high], eval_loss)]).values[-1]
        assert at_high <= at_low, f"train {low} scored {at_low}, train {high} scored {at_high}"
        if high >= eval_loss:
            assert at_high == alone, f"train {high} above eval {eval_loss} was punished"

    check()


def bounded(subject: Subject, examples: int) -> None:
    """Ask that a finite bound is stated, and that no score is further from its eval loss."""
    below, above = subject.code.score_bound(subject.own_plan)
    assert math.isfinite(below), "no bound is stated"
    assert math.isfinite(above), "no bound is stated"

    @attack(examples)
    @given(USABLE_ROUNDS)
    def check(rounds: list[Round]) -> None:
        scale = abs(rounds[0].loss)
        losses = list(scored_losses(rounds, subject.plan))
        for loss, value in zip(losses, subject.score(rounds).values, strict=True):
            slack = 1e-9 * max(abs(loss), scale)
            assert below * scale - slack <= value - loss <= above * scale + slack, (
                f"eval {loss} scored {value}"
            )

    check()


def neutral(subject: Subject, examples: int) -> None:
    """Ask that eval losses alone are the scores, and a missing value is as if it had stayed."""

    @attack(examples)
    @given(USABLE_ROUNDS)
    def check(rounds: list[Round]) -> None:
        bare = [Round([], each.loss) for each in rounds]
        values = subject.score(bare).values
        assert values == tuple(scored_losses(bare, subject.plan)), f"{bare} scored {values}"
        last = rounds[-1]._replace(margin=0.5, accuracy=0.5)
        gone = last._replace(train=[], margin=None, accuracy=None)
        missing = subject.score([*rounds, last, gone]).values[-1]
        stayed = subject.score([*rounds, last, last._replace(train=[])]).values[-1]
        assert missing == stayed, f"{missing} without margin and accuracy, {stayed} with the same"

    check()
    neutral_where_it_turns(subject)


def consistent(subject: Subject, examples: int) -> None:
    """Ask that the best is the argmin of the scores reported; a tie keeps the earlier one.

    A run ends with that one, or with what its objective says.
    """

    @attack(examples)
    @given(ANY_ROUNDS)
    @example([Round([0.5], 1.0), Round([], 1.0), Round([], 0.99), Round([0.0], 0.98)])
    def check(rounds: list[Round]) -> None:
        scores = subject.score(rounds)
        lowest = min(scores.values)
        expected = None if lowest == math.inf else scores.values.index(lowest) + 1
        assert scores.best_step == expected, f"{scores.values}: {scores.best_step} called best"
        before = [math.inf, *accumulate(scores.values, min)]
        running = [value < low for value, low in zip(scores.values, before, strict=False)]
        assert list(scores.is_best) == running, f"{scores.values}: flags {scores.is_best}"
        if subject.plan.objective is not Objective.REWARD:
            assert scores.chosen_step == expected, f"{scores.values}: {scores.chosen_step} chosen"

    check()
    if subject.plan.objective is Objective.REWARD:
        _rewarded(subject, examples)


def _rewarded(subject: Subject, examples: int) -> None:
    @attack(examples)
    @given(rounds_of(USUAL | st.sampled_from([-1.0, -0.99]), SHARE))
    def check(rounds: list[Round]) -> None:
        losses = list(scored_losses(rounds, subject.plan))
        limit = min(losses) + subject.plan.reward_tolerance * abs(min(losses))
        near = [
            float(str(each.margin))
            for each, loss in zip(rounds, losses, strict=True)
            if loss <= limit and each.margin is not None
        ]
        step = subject.score(rounds).chosen_step
        assert step is not None, "nothing chosen"
        if near:
            assert losses[step - 1] <= limit, f"eval {losses[step - 1]} chosen, limit {limit}"
            assert rounds[step - 1].margin == max(near), f"step {step} has not the highest margin"

    check()


def pareto(subject: Subject, examples: int) -> None:
    """Ask that a checkpoint that is worse on every metric never replaces a better one."""

    @attack(examples)
    @given(st.lists(FINITE, max_size=4), FINITE, st.floats(0.001, 1e3), st.floats(0, 1e3), SHARE)
    def check(before: list[float], loss: float, worse: float, wider: float, share: float) -> None:
        # The first train loss logged is the whole average, and a lower one after it lowers it.
        good = Round([loss - 1.0], loss, margin=1.0, accuracy=share)
        rounds = [*(Round([], earlier) for earlier in before), good]
        as_scored = list(scored_losses(rounds, subject.plan))[-1]
        lower = share * 0.5
        bad = Round([loss - 1.0 - wider], max(loss, as_scored) + worse, 1.0 - worse, lower)
        scores = subject.score([*rounds, bad])
        assert not scores.is_best[-1], f"{bad} replaced {good}: {scores.values[-2:]}"
        assert scores.chosen_step != len(rounds) + 1, f"{bad} chosen before {good}"

    check()
    pareto_where_it_turns(subject)


def causal(subject: Subject, examples: int) -> None:
    """Ask that a score depends on what came before it only, and that replay gives it again.

    Also from a log cut anywhere, or read back from a checkpoint.
    """

    @attack(examples)
    @given(ANY_ROUNDS, st.integers(0, 30))
    def check(rounds: list[Round], place: int) -> None:
        log = log_of(rounds)
        cut = place % len(log)
        whole, first = subject.fold(log), subject.fold(log[:cut])
        assert whole.values[: len(first.values)] == first.values, "a later log changed a score"
        resumed = subject.replay(_from_disk(log[:cut], subject))
        assert resumed.state == first.state, "what was replayed is not what was observed"
        went_on = subject.fold(log[cut:], resumed.state)
        assert first.values + went_on.values == whole.values, f"cut at {cut}: other scores"
        assert went_on.state == whole.state, f"cut at {cut}: {went_on.best_step} called best"

    check()


def _from_disk(log: Log, subject: Subject) -> Log:
    """Return the log as trainer_state.json gives it back: keys sorted, our own score among them."""
    scored = [
        {**entry, subject.code.SCORE_KEY: 1.0} if "eval_runtime" in entry else entry
        for entry in log
    ]
    restored: Log = json.loads(json.dumps(scored, sort_keys=True))
    return restored


def deterministic(subject: Subject, examples: int) -> None:
    """Ask that no clock, no timing key and nothing else that differs between ranks is read."""
    code = subject.code
    scorer = code.SCORERS[subject.own_plan.name]
    functions = (code.observe_log, code.read_log, code.replay_scores, code.final_choice)
    reached = forbidden_reach((*functions, code.trainer_metric, scorer.components, scorer.bound))
    assert not reached, f"its code uses {', '.join(reached)}"

    @attack(examples)
    @given(ANY_ROUNDS, st.floats(0.001, 1e9))
    @example([Round([], None)], 9.0)
    def check(rounds: list[Round], seconds: float) -> None:
        log = log_of(rounds)
        rank = [
            {**entry, "eval_runtime": seconds, "eval_samples_per_second": seconds}
            if "eval_runtime" in entry
            else entry
            for entry in log
        ]
        assert subject.fold(rank) == subject.fold(log), "another rank would score otherwise"

    check()


def directed(subject: Subject, examples: int) -> None:
    """Ask that no direction is guessed: the trainer gets the score with its sign turned.

    Metrics that are not the scorer's change nothing, whatever they are called.
    """

    @attack(examples)
    @given(ANY_ROUNDS, FINITE)
    @example([Round([], None)], 9.0)
    def check(rounds: list[Round], value: float) -> None:
        log = log_of(rounds)
        scores = subject.fold(log)
        for score, metric in zip(scores.values, scores.metrics, strict=True):
            turned = metric == -score if score < math.inf else math.isnan(metric)
            assert turned, f"score {score} is told to the trainer as {metric}"
        assert subject.fold(_with_strangers(log, value)) == scores, "another metric was read"

    check()


def _with_strangers(log: Log, value: float) -> Log:
    """Return the log with metrics nobody scores, and with a second eval set after each first."""
    strangers = {"eval_f1": value, "eval_score_loss": value, "eval_error_score": value}
    further = {"eval_more_loss": value, "eval_more_runtime": 0.1}
    mixed: Log = []
    for entry in log:
        is_evaluation = "eval_runtime" in entry
        mixed.append({**entry, **strangers} if is_evaluation else entry)
        mixed += [{**further, "step": entry["step"]}] if is_evaluation else []
    return mixed


def scale_free(subject: Subject, examples: int) -> None:
    """Ask that multiplying every loss by a power of two multiplies the scores, and no more."""

    @attack(examples)
    @given(rounds_of(SCALABLE, SHARE), st.integers(-20, 20))
    def check(rounds: list[Round], power: int) -> None:
        unit = 2.0**power
        other = [
            each._replace(train=[loss * unit for loss in each.train], loss=each.loss * unit)  # type: ignore[operator]  # these rounds hold floats
            for each in rounds
        ]
        scores, rescaled = subject.score(rounds), subject.score(other)
        slack = 1e-9 * abs(rounds[0].loss) * unit
        for value, other_value in zip(scores.values, rescaled.values, strict=True):
            assert math.isclose(value * unit, other_value, rel_tol=1e-9, abs_tol=slack), (
                f"{value} became {other_value} when the losses became {unit} times as large"
            )
        assert rescaled.is_best == scores.is_best, f"times {unit}: {rescaled.is_best}"
        assert rescaled.chosen_step == scores.chosen_step, f"times {unit}: {rescaled.chosen_step}"

    check()


PROPERTIES: Mapping[str, Callable[[Subject, int], None]] = {
    check.__name__: check
    for check in (
        total,
        monotone,
        one_sided,
        bounded,
        neutral,
        consistent,
        pareto,
        causal,
        deterministic,
        directed,
        scale_free,
        documented,
    )
}


def broken_properties(
    code: Any,
    plan: ScorerPlan,
    examples: int,
    laws: Mapping[str, Callable[[Subject, int], None]] = PROPERTIES,
) -> tuple[Problem, ...]:
    """Return a problem for each of these properties that the embedded scorer breaks, and how."""
    subject = subject_of(code, plan)
    problems = []
    for name, check in laws.items():
        try:
            check(subject, examples)
        except (Exception, HypothesisException) as error:
            law = (check.__doc__ or name).splitlines()[0].removeprefix("Ask that").lstrip(", ")
            what = f"does not hold: {law} {_shown(error)}"
            problems.append(Problem(f"scorer.{name}", what, _way_out(plan)))
    return tuple(problems)


def _way_out(plan: ScorerPlan) -> str:
    """Return what to do about a scorer that breaks a property."""
    page = "docs/explanation/score.md#what-is-asked-of-a-scorer"
    mend = f"mend {plan.file}" if plan.name is ScorerName.OWN else "take scorer=robust"
    return f"{mend}, or say why not in gates.skip.scorer='...'; what is asked: {page}"


def _shown(error: BaseException) -> str:
    """Return what was wrong, and the smallest example Hypothesis found for it."""
    notes = " ".join(getattr(error, "__notes__", ()))
    return f"[{type(error).__name__}: {error}] {' '.join(notes.split())}".strip()
