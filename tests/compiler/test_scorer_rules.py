"""Keys of the scorer that do not fit the method, the evaluations or the saves are refused."""

import pytest

from podproof.compiler.errors import BadConfig
from podproof.compiler.read import Request, read
from podproof.runtime.plan import Objective

REWARD = "scorer.objective=reward"
KEPT = "trainer.save_total_limit=null"


def refused(*overrides: str) -> dict[str, tuple[str, str]]:
    """Return what is refused of a config: for each key what is wrong, and the way out."""
    with pytest.raises(BadConfig) as caught:
        read(Request(overrides))
    return {problem.where: (problem.what, problem.way_out) for problem in caught.value.problems}


def test_dpo_may_choose_by_reward_when_every_checkpoint_is_kept() -> None:
    config = read(Request(("experiment=tiny_dpo", REWARD, KEPT)))

    assert config.scorer.objective is Objective.REWARD


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_reward_with_checkpoints_rotated_away_is_refused(limit: int) -> None:
    found = refused("experiment=tiny_dpo", REWARD, f"trainer.save_total_limit={limit}")

    what, way_out = found["trainer.save_total_limit"]
    assert f"got {limit}" in what
    assert way_out == "set trainer.save_total_limit=null"


def test_reward_is_refused_for_orpo_with_what_was_measured() -> None:
    what, way_out = refused("experiment=tiny_orpo", REWARD, KEPT)["scorer.objective"]

    assert "0.072 nats" in what
    assert way_out == "set scorer.objective=loss"


def test_reward_is_refused_for_sft_which_has_no_margins() -> None:
    what, _ = refused("experiment=tiny_sft", REWARD, KEPT)["scorer.objective"]

    assert "sft logs none" in what


@pytest.mark.parametrize("experiment", ["tiny_sft", "tiny_dpo", "tiny_orpo"])
def test_every_method_may_choose_by_accuracy(experiment: str) -> None:
    config = read(Request((f"experiment={experiment}", "scorer.objective=accuracy")))

    assert config.scorer.objective is Objective.ACCURACY


@pytest.mark.parametrize(
    ("key", "value"),
    [("scorer.objective", "accuracy"), ("scorer.early_stopping.patience", "3")],
)
def test_what_needs_evaluations_is_refused_without_any(key: str, value: str) -> None:
    found = refused("experiment=tiny_sft", "trainer.eval_strategy=no", f"{key}={value}")

    assert "needs evaluations" in found[key][0]
