"""Which checkpoint each scorer would have chosen, why, and what the choice cost."""

import math
from dataclasses import replace
from typing import Any

import pytest

from podproof.compiler.errors import BadConfig
from podproof.monitor.errors import BadHistory
from podproof.monitor.history import Columns, History, history_of_log
from podproof.monitor.rescore import Choice, HeldOut, Rescored, rescore, rescore_all
from podproof.monitor.scorers import named_scorers
from podproof.runtime.plan import Objective

# Step 30 has the lowest eval loss, by 0.01; its gap to the train loss costs it 0.02 * 0.81.
LOSSES = [(10, 2.0, 2.0), (20, 1.5, 1.51), (30, 0.2, 1.50)]
HELD_OUT = {10: 1.9, 20: 1.4, 30: 1.6}


def history(*rounds: tuple[int, Any, Any], held_out: dict[int, Any] | None = None) -> History:
    """Return a run of rounds of a step, the train loss logged there and the eval loss."""
    log: list[dict[str, Any]] = []
    for step, train_loss, eval_loss in rounds:
        log.append({"loss": train_loss, "step": step})
        log.append({"eval_loss": eval_loss, "test": (held_out or {}).get(step), "step": step})
    return history_of_log("run", "given", log, Columns())


def choice(of: Rescored, scorer: str) -> Choice:
    return next(choice for choice in of.choices if choice.scorer == scorer)


def chosen(*rounds: tuple[int, Any, Any], scorer: str = "robust") -> Choice:
    return rescore(history(*rounds), named_scorers([scorer])).choices[0]


def test_each_scorer_chooses_by_its_own_score() -> None:
    rescored = rescore(history(*LOSSES), named_scorers([]))

    assert {c.scorer: c.step for c in rescored.choices} == {
        "robust": 20,
        "eval_loss": 30,
        "seed_v1": 20,
    }


def test_a_choice_tells_score_components_and_margin() -> None:
    robust = chosen(*LOSSES)

    # Train average after step 20: (2.0 + 1.5) / 2 = 1.75, above the eval loss, so there is no gap.
    assert (robust.step, robust.score, robust.eval_loss) == (20, 1.51, 1.51)
    assert robust.components == (("eval_loss", 1.51), ("gap", 0.0))
    # After step 30: (1.75 + 0.2) / 2 = 0.975; 1.50 + 0.02 * (1.50 - 0.975) = 1.5105.
    assert robust.runner_up == 30
    assert robust.margin == pytest.approx(0.0005)
    assert robust.scores == pytest.approx((2.0, 1.51, 1.5105))


def test_a_choice_tells_why_the_lowest_eval_loss_was_not_chosen() -> None:
    why = chosen(*LOSSES).why

    assert why == (
        "lowest score of 3: 1.5100 = eval_loss +1.5100 gap +0.0000; "
        "next is step 30, 0.0005 behind (eval_loss -0.0100, gap +0.0105); "
        "step 30 has the lowest eval loss, by 0.0100, and lost by its gap (+0.0105)"
    )


def test_a_tie_is_told_and_the_earlier_is_kept() -> None:
    tied = chosen((10, None, 1.0), (20, None, 1.0))

    assert (tied.step, tied.margin) == (10, 0.0)
    assert "step 20 scores the same, and the earlier is kept" in tied.why


def test_unusable_evaluations_are_counted_and_never_chosen() -> None:
    only = chosen((10, 1.0, math.nan), (20, 1.0, 2.0), (30, 1.0, None))

    assert (only.step, only.runner_up, only.margin) == (20, None, None)
    assert only.why.startswith("lowest score of 1 (2 more cannot be used)")
    assert only.scores[0] == math.inf


def test_a_run_without_a_usable_evaluation_has_no_choice() -> None:
    none = chosen((10, 1.0, math.nan), (20, 1.0, math.inf))

    assert (none.step, none.failure) == (None, None)
    assert none.why == "none of its 2 evaluations can be used"


def test_a_scorer_that_raises_is_shown_as_such_and_the_others_choose() -> None:
    rescored = rescore(history((10, 1.0, 800.0), (20, 1.0, 700.0)), named_scorers([]))

    failed = choice(rescored, "seed_v1")
    assert (failed.step, failed.scores) == (None, ())
    assert failed.failure == "OverflowError: math range error"
    assert choice(rescored, "robust").step == 20


def test_regret_is_the_held_out_value_above_the_best_there_was() -> None:
    rescored = rescore(history(*LOSSES, held_out=HELD_OUT), named_scorers([]), HeldOut("test"))

    assert rescored.best_held_out == 20
    assert choice(rescored, "robust").regret == 0.0
    assert choice(rescored, "eval_loss").regret == pytest.approx(0.2)


def test_regret_counts_downwards_where_higher_is_better_and_only_then() -> None:
    of = HeldOut("test", higher_is_better=True)

    rescored = rescore(history(*LOSSES, held_out=HELD_OUT), named_scorers([]), of)

    assert rescored.best_held_out == 10
    assert choice(rescored, "robust").regret == pytest.approx(0.5)
    assert choice(rescored, "eval_loss").regret == pytest.approx(0.3)


def test_regret_is_not_known_where_the_choice_was_not_measured() -> None:
    some = {10: 1.9, 20: math.nan, 30: 1.6}

    rescored = rescore(history(*LOSSES, held_out=some), named_scorers(["robust"]), HeldOut("test"))

    assert rescored.best_held_out == 30
    assert (rescored.choices[0].held_out, rescored.choices[0].regret) == (None, None)


def test_a_held_out_metric_the_run_does_not_have_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadHistory, match="did you mean test"):
        rescore(history(*LOSSES, held_out=HELD_OUT), named_scorers([]), HeldOut("tset"))


def test_every_record_that_lacks_the_held_out_metric_is_told_once() -> None:
    runs = [history(*LOSSES), replace(history(*LOSSES), source="other"), history(*LOSSES)]

    with pytest.raises(BadHistory) as refused:
        rescore_all(runs, named_scorers([]), HeldOut("f1"))

    assert [problem.where for problem in refused.value.problems] == ["given", "other"]


def test_a_held_out_metric_of_another_step_than_an_evaluation_is_none() -> None:
    with pytest.raises(BadHistory, match="no evaluation has a number called 'loss'"):
        rescore(history_of_log("run", "given", LOG_APART, Columns()), (), HeldOut("loss"))


def test_for_the_reward_a_higher_margin_near_the_lowest_eval_loss_is_chosen_and_told() -> None:
    log = [
        {"eval_loss": 0.650, "eval_rewards/margins": 0.2, "step": 10},
        {"eval_loss": 0.652, "eval_rewards/margins": 0.6, "step": 20},
        {"eval_loss": 0.700, "eval_rewards/margins": 0.9, "step": 30},
    ]
    preferences = history_of_log("run", "given", log, Columns())

    loss = rescore(preferences, named_scorers(["eval_loss"])).choices[0]
    reward = rescore(preferences, named_scorers(["eval_loss"], Objective.REWARD)).choices[0]

    assert (loss.step, reward.step) == (10, 20)
    assert reward.margin == pytest.approx(-0.002)
    assert reward.why == (
        "score 0.6520 = eval_loss +0.6520, chosen for its reward margin, 0.6000, where step 10 has "
        "0.2000; lowest score of 3 is 0.6500; step 10 has the lowest eval loss, by 0.0020"
    )


def test_an_evaluation_before_the_first_step_has_no_checkpoint_to_choose() -> None:
    assert chosen((0, None, 0.5), (10, None, 1.0), scorer="eval_loss").step == 10


def test_an_evaluation_that_lost_its_loss_counts_as_unusable() -> None:
    log = [{"eval_runtime": 0.1, "step": 10}, {"eval_loss": 2.0, "eval_runtime": 0.1, "step": 20}]

    lost = rescore(history_of_log("run", "given", log, Columns()), named_scorers([])).choices[0]

    assert lost.step == 20
    assert "(1 more cannot be used)" in lost.why


LOG_APART = ({"loss": 1.0, "step": 5}, {"eval_loss": 1.0, "step": 10})


def test_an_unknown_scorer_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadConfig, match="did you mean robust"):
        named_scorers(["robst"])


def test_a_scorer_named_twice_is_asked_once() -> None:
    assert [scorer.name for scorer in named_scorers(["seed_v1", "robust", "seed_v1"])] == [
        "seed_v1",
        "robust",
    ]
