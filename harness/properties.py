"""What must hold of any scorer that leaves the harness, attacked by Hypothesis.

Each property is a function of the embedded code and the plan's scorer section; it raises
AssertionError with Hypothesis' smallest counterexample. The runs are derandomized: the same script
gets the same verdict on every machine.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from hypothesis.errors import HypothesisException

from podproof.runtime.errors import Problem
from podproof.runtime.plan import ScorerPlan

# A step of a drawn run: the train losses logged before an evaluation, then its loss.
Round = tuple[Sequence[object], object]

_FINITE = st.floats(-1e6, 1e6, allow_nan=False) | st.sampled_from([0.0, 1e-9, 0.5, 2.0, 20.0])
_HOSTILE: st.SearchStrategy[object] = st.sampled_from(
    [
        None,
        math.nan,
        math.inf,
        -math.inf,
        "0.1",
        True,
        False,
        10**400,
        -(10**400),
        [],
        1e308,
        -1e308,
    ]
)
_ANY_LOSS: st.SearchStrategy[object] = _FINITE | _HOSTILE
_TRAIN = st.lists(_FINITE, max_size=3)
_ROUNDS = st.lists(st.tuples(st.lists(_ANY_LOSS, max_size=3), _ANY_LOSS), min_size=1, max_size=8)
_USABLE_ROUNDS = st.lists(st.tuples(_TRAIN, _FINITE), min_size=1, max_size=8)


@dataclass(frozen=True)
class Scores:
    """The scores of one drawn run, in order, and the step finally called best (None: none)."""

    values: tuple[float, ...]
    is_best: tuple[bool, ...]
    best_step: int | None


def score_rounds(code: Any, rounds: Sequence[Round], plan: ScorerPlan) -> Scores:
    """Fold the embedded scorer over rounds; evaluation k is step k, counted from 0."""
    own_plan = _own_plan(code, plan)
    state = code.ScoreState()
    values: list[float] = []
    flags: list[bool] = []
    for step, (train_losses, eval_loss) in enumerate(rounds):
        for loss in train_losses:
            state = code.observe_train_loss(state, loss, own_plan)
        state, score = code.observe_evaluation(state, step, eval_loss, own_plan)
        values.append(score.value)
        flags.append(score.is_best)
    return Scores(tuple(values), tuple(flags), state.best_step)


def _own_plan(code: Any, plan: ScorerPlan) -> Any:
    """Return the plan's scorer section as the script's own classes, with its weights."""
    return code.ScorerPlan(
        name=code.ScorerName(plan.name.value),
        gap_weight=plan.gap_weight,
        gap_limit=plan.gap_limit,
        train_ema_alpha=plan.train_ema_alpha,
    )


def total(code: Any, plan: ScorerPlan, examples: int) -> None:
    """Ask that no input scores NaN, and that an unusable one scores +inf and is never best."""

    @_attack(examples)
    @given(_ROUNDS)
    def check(rounds: list[Round]) -> None:
        scores = score_rounds(code, rounds, plan)
        assert not any(math.isnan(value) for value in scores.values), f"NaN in {scores.values}"
        for (_, eval_loss), value, is_best in zip(
            rounds, scores.values, scores.is_best, strict=True
        ):
            if not _is_usable(eval_loss):
                assert value == math.inf, f"unusable {eval_loss!r} scored {value}"
                assert not is_best, f"unusable {eval_loss!r} called best"

    check()


def monotone(code: Any, plan: ScorerPlan, examples: int) -> None:
    """Ask that, with all else equal, a lower eval loss never scores worse."""

    @_attack(examples)
    @given(_USABLE_ROUNDS, _TRAIN, _FINITE, _FINITE)
    def check(before: list[Round], train: list[float], one: float, other: float) -> None:
        low, high = sorted((one, other))
        low_score = score_rounds(code, [*before, (train, low)], plan).values[-1]
        high_score = score_rounds(code, [*before, (train, high)], plan).values[-1]
        assert low_score <= high_score, f"{low} scored {low_score}, {high} scored {high_score}"

    check()


def one_sided(code: Any, plan: ScorerPlan, examples: int) -> None:
    """Ask that train loss above eval loss is never punished; a wider train-eval gap never helps."""

    @_attack(examples)
    @given(_FINITE, _FINITE, _FINITE)
    def check(eval_loss: float, one: float, other: float) -> None:
        low, high = sorted((one, other))
        alone = score_rounds(code, [([], eval_loss)], plan).values[-1]
        at_low = score_rounds(code, [([low], eval_loss)], plan).values[-1]
        at_high = score_rounds(code, [([high], eval_loss)], plan).values[-1]
        assert at_high <= at_low, f"train {low} scored {at_low}, train {high} scored {at_high}"
        if high >= eval_loss:
            assert at_high == alone, f"train {high} above eval {eval_loss} was punished"

    check()


def bounded(code: Any, plan: ScorerPlan, examples: int) -> None:
    """Ask that the score never leaves eval loss by more than gap_weight * gap_limit * its scale."""

    @_attack(examples)
    @given(_USABLE_ROUNDS)
    def check(rounds: list[Round]) -> None:
        scale = abs(float(rounds[0][1]))  # type: ignore[arg-type]  # usable rounds hold floats
        bound = plan.gap_weight * plan.gap_limit * scale
        scores = score_rounds(code, rounds, plan)
        for (_, eval_loss), value in zip(rounds, scores.values, strict=True):
            loss = float(eval_loss)  # type: ignore[arg-type]  # usable rounds hold floats
            slack = 1e-9 * max(abs(loss), scale, 1.0)
            assert -slack <= value - loss <= bound + slack, f"eval {loss} scored {value}"

    check()


def neutral(code: Any, plan: ScorerPlan, examples: int) -> None:
    """Ask that, with no train loss ever logged, the score is the eval loss itself."""

    @_attack(examples)
    @given(st.lists(_FINITE, min_size=1, max_size=8))
    def check(losses: list[float]) -> None:
        scores = score_rounds(code, [([], loss) for loss in losses], plan)
        assert scores.values == tuple(losses), f"{losses} scored {scores.values}"

    check()


def consistent(code: Any, plan: ScorerPlan, examples: int) -> None:
    """Ask that the best is the argmin of the scores reported; a tie keeps the earlier one."""

    @_attack(examples)
    @given(_ROUNDS)
    def check(rounds: list[Round]) -> None:
        scores = score_rounds(code, rounds, plan)
        lowest = min(scores.values)
        expected = None if lowest == math.inf else scores.values.index(lowest)
        assert scores.best_step == expected, f"{scores.values}: {scores.best_step} called best"
        running = [
            value < min(scores.values[:k], default=math.inf)
            for k, value in enumerate(scores.values)
        ]
        assert list(scores.is_best) == running, f"{scores.values}: flags {scores.is_best}"

    check()


def pareto(code: Any, plan: ScorerPlan, examples: int) -> None:
    """Ask that a checkpoint with a higher eval loss and a wider gap never replaces a better one."""

    @_attack(examples)
    @given(st.lists(_FINITE, max_size=4), _FINITE, st.floats(0.001, 1e3), st.floats(0, 1e3))
    def check(before: list[float], loss: float, worse: float, wider: float) -> None:
        # The first train loss logged is the whole average, and a lower one after it lowers it.
        train = loss - 1.0
        rounds: list[Round] = [([], earlier) for earlier in before]
        rounds += [([train], loss), ([train - wider], loss + worse)]
        scores = score_rounds(code, rounds, plan)
        assert not scores.is_best[-1], f"{rounds[-1]} replaced {rounds[-2]}: {scores.values[-2:]}"

    check()


def causal(code: Any, plan: ScorerPlan, examples: int) -> None:
    """Ask that a score depends on what came before it only, and that replay gives it again."""

    @_attack(examples)
    @given(_ROUNDS, _ROUNDS)
    def check(first: list[Round], later: list[Round]) -> None:
        whole = score_rounds(code, [*first, *later], plan).values
        assert whole[: len(first)] == score_rounds(code, first, plan).values
        state, replayed = code.replay_scores(_log_of([*first, *later]), _own_plan(code, plan))
        assert tuple(score.value for score in replayed) == whole, "replay gave other scores"
        assert state.best_step == score_rounds(code, [*first, *later], plan).best_step

    check()


def _log_of(rounds: Sequence[Round]) -> list[dict[str, object]]:
    """Return the rounds as a trainer's log_history, timing keys and final summary included."""
    log: list[dict[str, object]] = []
    for step, (train_losses, eval_loss) in enumerate(rounds):
        log += [{"loss": loss, "grad_norm": 1.0, "step": step} for loss in train_losses]
        log.append({"eval_loss": eval_loss, "eval_runtime": 0.1 * step, "step": step})
    return [*log, {"train_loss": 1.0, "train_runtime": 1.0, "step": len(rounds)}]


def _is_usable(value: object) -> bool:
    # Said again here, apart from the scorer: the embedded code is not asked about itself.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _attack(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )


PROPERTIES: dict[str, Callable[[Any, ScorerPlan, int], None]] = {
    check.__name__: check
    for check in (total, monotone, one_sided, bounded, neutral, consistent, pareto, causal)
}


def broken_properties(code: Any, plan: ScorerPlan, examples: int) -> tuple[Problem, ...]:
    """Return a problem for each property the embedded scorer breaks, with the counterexample."""
    problems = []
    for name, check in PROPERTIES.items():
        try:
            check(code, plan, examples)
        except (Exception, HypothesisException) as error:
            law = (
                (check.__doc__ or name)
                .strip()
                .splitlines()[0]
                .removeprefix("Ask that")
                .lstrip(", ")
            )
            problems.append(Problem(f"scorer.{name}", f"does not hold: {law} {_shown(error)}"))
    return tuple(problems)


def _shown(error: BaseException) -> str:
    notes = " ".join(getattr(error, "__notes__", ()))
    return f"[{type(error).__name__}: {error}] {' '.join(notes.split())}".strip()
