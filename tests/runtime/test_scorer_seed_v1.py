"""The original formula: bit for bit as it was, and each flaw it is known for, shown.

It lives in our fold, which compares every checkpoint by the score that was reported. The original
compared the newcomer's whole score with the best one's without its gap and bonus; where a flaw is
of that comparison, it is rebuilt here.
"""

import math
import random
from collections.abc import Sequence
from itertools import permutations

import pytest

from podproof.runtime.plan import ScorerName, ScorerPlan
from podproof.runtime.scorer import SCORERS, replay_scores
from podproof.runtime.scores import Evaluation, Score, ScoreState
from podproof.runtime.selfcheck import SEED_V1_VECTORS

SEED_V1 = ScorerPlan(name=ScorerName.SEED_V1)

# An evaluation: its loss, and the train loss logged before it.
Pair = tuple[float, float | None]


def components(loss: float, train_loss: float | None, not_improving: int = 1) -> dict[str, float]:
    state = ScoreState(last_train_loss=train_loss, not_improving=not_improving)
    evaluation = Evaluation(1, loss, abs(loss), train_loss, None, None)
    return dict(SCORERS[ScorerName.SEED_V1].components(state, evaluation, SEED_V1))


def single(loss: float, train_loss: float | None, not_improving: int = 1) -> float:
    """Return the original formula's score of one evaluation."""
    return sum(components(loss, train_loss, not_improving).values())


def folded(pairs: Sequence[Pair]) -> tuple[ScoreState, tuple[Score, ...]]:
    """Return what our fold makes of a run; evaluation k is step k, counted from 1."""
    log = [
        entry
        for step, (loss, train_loss) in enumerate(pairs, 1)
        for entry in ({"loss": train_loss, "step": step}, {"eval_loss": loss, "step": step})
    ]
    return replay_scores(log, SEED_V1)


def originally_best(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return what the original called best: a newcomer's score against half of the best one's."""
    best, not_improving = pairs[0], 1
    for (before, _), (loss, train_loss) in zip([(math.inf, 0.0), *pairs], pairs, strict=False):
        if single(loss, train_loss, not_improving) < single(best[0], None, 1):
            best = (loss, train_loss)
        improved = math.isfinite(before) and loss < before
        not_improving = 0 if improved else not_improving + math.isfinite(before)
    return best


# The published values.


@pytest.mark.parametrize(("loss", "train_loss", "not_improving", "expected"), SEED_V1_VECTORS)
def test_the_formula_gives_its_published_values(
    loss: float, train_loss: float | None, not_improving: int, expected: float
) -> None:
    assert single(loss, train_loss, not_improving) == pytest.approx(expected, abs=1e-6)


def test_the_formula_gives_the_line_that_production_logged() -> None:
    parts = components(2.31566, 2.31566 - 0.059258)

    assert parts["gap"] == pytest.approx(0.007677, abs=1e-6)
    assert parts["perplexity"] == pytest.approx(0.050658, abs=1e-6)
    assert parts["improving"] == 0.0
    assert sum(parts.values()) == pytest.approx(1.216165, abs=1e-6)


def test_an_evaluation_without_a_loss_scores_infinity() -> None:
    _, scores = replay_scores([{"eval_loss": None, "step": 1}], SEED_V1)

    assert scores[0].value == math.inf


@pytest.mark.parametrize(
    ("logged", "expected"),
    [((1.5,), 1.5), ((1.5, None), 1.5), ((None,), None), ((2.5, 2.0, 1.8, None), 1.8)],
)
def test_the_train_loss_is_the_last_one_logged(
    logged: tuple[float | None, ...], expected: float | None
) -> None:
    state, _ = replay_scores([{"loss": loss} for loss in logged], SEED_V1)

    assert state.last_train_loss == expected


# Its flaws, in the order of the list that was made of them.


def test_flaw_1_a_loss_of_710_overflows() -> None:
    assert single(709.78, 709.78) == pytest.approx(354.99, abs=1e-2)
    assert single(-math.inf, None) == -math.inf
    with pytest.raises(OverflowError):
        single(709.79, 709.79)
    with pytest.raises(OverflowError):
        folded([(710.0, None)])


def test_flaw_2_a_loss_that_is_nan_poisons_the_score_and_loses_every_comparison() -> None:
    assert math.isnan(single(math.nan, 1.0))
    assert math.isnan(single(1.0, math.nan))
    assert originally_best([(1.0, math.nan), (0.8, math.nan), (0.7, math.nan)])[0] == 1.0


def test_flaw_2_does_not_reach_our_fold() -> None:
    state, _ = folded([(1.0, math.nan), (math.nan, math.nan), (0.7, math.nan)])

    assert state.best_step == 3


@pytest.mark.parametrize(
    ("loss", "train_loss", "expected"),
    [(0.0, 0.01, 3.005), (-0.1, -0.12, 5.955), (-0.5, -0.4, 29.753), (-0.5, -0.5, -0.247)],
)
def test_flaw_3_losses_at_or_below_zero_make_the_gap_enormous(
    loss: float, train_loss: float, expected: float
) -> None:
    assert single(loss, train_loss) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("train_loss", "turn"), [(0.5, 0.548), (1.0, 0.775), (2.0, 1.095), (3.0, 1.342), (20.0, 3.464)]
)
def test_flaw_4_below_a_turning_point_a_lower_eval_loss_scores_worse(
    train_loss: float, turn: float
) -> None:
    assert turn == pytest.approx(math.sqrt(0.6 * train_loss), abs=1e-3)
    assert single(0.5 * turn, train_loss) > single(0.9 * turn, train_loss)


def test_flaw_4_in_the_numbers_of_its_report() -> None:
    scores = [single(loss, 2.0) for loss in (0.2, 0.8, 1.1, 2.0)]

    assert scores == pytest.approx([2.806, 0.861, 0.810, 1.037], abs=1e-3)


def test_flaw_5_a_train_loss_above_is_punished_like_one_below() -> None:
    assert single(1.0, 1.3) == pytest.approx(0.603591, abs=1e-6)
    assert single(1.0, 1.3) == pytest.approx(single(1.0, 0.7), abs=1e-12)


def test_flaw_5_an_inflated_train_loss_prefers_the_worst_checkpoint() -> None:
    assert single(2.836, 19.75) == pytest.approx(3.2924, abs=1e-4)
    assert single(3.476, 19.75) == pytest.approx(3.2425, abs=1e-4)


def test_flaw_6_a_missing_train_loss_is_rewarded() -> None:
    assert single(1.0, None) == pytest.approx(0.513591, abs=1e-6)
    assert single(1.0, 0.95) == pytest.approx(0.528591, abs=1e-6)
    assert single(2.0, None) < single(2.0, 1.8)


def test_flaw_7_perplexity_is_flat_where_losses_are_high_and_small_where_they_are_low() -> None:
    assert components(2.9958, None)["perplexity"] == components(300.0, None)["perplexity"] == 0.1
    assert components(1.0, None)["perplexity"] < 0.014


def test_flaw_8_the_bonus_comes_one_evaluation_late() -> None:
    state, scores = folded([(loss, loss) for loss in (1.2, 1.0, 1.05)])

    assert state.best_step == 3
    assert scores[2].value == pytest.approx(0.4393, abs=1e-4)
    assert scores[1].value == pytest.approx(0.5136, abs=1e-4)


def test_flaw_9_a_counter_that_starts_at_0_calls_a_worse_evaluation_best() -> None:
    # One of the two original programs started it at 0, the other at 1; ours starts at 1.
    assert single(1.1, None, 0) == pytest.approx(0.465, abs=1e-3)
    assert single(1.1, None, 0) < single(1.0, None, 1) == pytest.approx(0.5136, abs=1e-4)
    assert folded([(1.0, None), (1.1, None)])[0].best_step == 1


PARETO = ((1.30, 1.30), (1.25, 0.95), (1.20, 0.90), (1.22, 0.88), (1.15, 0.85), (1.18, 0.80))


def test_flaw_10_the_best_is_compared_without_its_gap_and_bonus() -> None:
    assert single(1.0, 0.7) == pytest.approx(0.603591, abs=1e-6)
    assert single(1.0, None) == pytest.approx(0.513591, abs=1e-6)
    # (1.10, 0.80) has the lower eval loss, the smaller gap and the better trajectory.
    assert originally_best([*PARETO, (1.10, 0.80)]) == (1.18, 0.80)


def test_flaw_10_does_not_reach_our_fold_which_compares_what_it_reports() -> None:
    state, scores = folded([*PARETO, (1.10, 0.80)])

    lowest = min(scores, key=lambda score: score.value)
    assert (state.best_step, state.best_score) == (lowest.step, lowest.value)


def test_flaw_11_the_winner_depends_on_the_order_of_the_same_checkpoints() -> None:
    four = [(1.0, 0.9), (0.98, 0.8), (1.02, 0.95), (1.05, 1.05)]

    originally = {originally_best(order) for order in permutations(four)}
    in_our_fold = {order[(folded(order)[0].best_step or 0) - 1] for order in permutations(four)}

    assert originally == in_our_fold == set(four)


def test_flaw_12_on_noisy_curves_it_misses_the_lowest_eval_loss() -> None:
    curves = [noisy_curve(random.Random(seed)) for seed in range(300)]  # noqa: S311 - no secret

    missed = sum(originally_best(curve) != min(curve) for curve in curves)
    missed_in_our_fold = sum(curve[best_index(curve)] != min(curve) for curve in curves)

    assert missed > 0.6 * len(curves)
    assert missed_in_our_fold > 0.25 * len(curves)


def noisy_curve(draw: random.Random) -> list[tuple[float, float]]:
    """Return a run that improves, then overfits slightly, with a gap that widens."""
    trend = [1 + 0.6 * math.exp(-k / 3) + 0.02 * max(0, k - 5) for k in range(draw.randint(5, 15))]
    losses = [loss + draw.gauss(0, 0.03) for loss in trend]
    return [(loss, loss - 0.02 * k) for k, loss in enumerate(losses)]


def best_index(curve: list[tuple[float, float]]) -> int:
    return (folded(curve)[0].best_step or 0) - 1
