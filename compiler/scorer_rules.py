"""What the scorer's keys must satisfy together with the method, the evaluations and the saves."""

from collections.abc import Iterator

from podproof.compiler.own_scorer import own_scorer_problems
from podproof.compiler.schema import Config, EvalStrategy
from podproof.runtime.errors import Problem
from podproof.runtime.plan import MethodName, Objective

# Why the highest reward margin is not on offer for the other methods; the figure is from the
# experiment of docs/explanation/score.md.
_NO_REWARD = {
    MethodName.SFT: "reward needs the margins of a preference method, and sft logs none",
    MethodName.ORPO: (
        "reward is for dpo only: where it was measured, the highest margin cost orpo runs 0.072 "
        "nats of test loss, and dpo runs 0.006"
    ),
}


def scorer_rules(config: Config) -> Iterator[Problem]:
    """Yield every rule of the scorer section that the config breaks."""
    yield from own_scorer_problems(config.scorer)
    yield from _without_evaluations(config)
    if config.scorer.objective is Objective.REWARD:
        yield from _reward(config)


def _without_evaluations(config: Config) -> Iterator[Problem]:
    if config.trainer.eval_strategy is not EvalStrategy.NO:
        return
    wanted = {
        "scorer.objective": config.scorer.objective is not Objective.LOSS,
        "scorer.early_stopping.patience": config.scorer.early_stopping.patience is not None,
    }
    for key in (key for key, is_wanted in wanted.items() if is_wanted):
        what = "needs evaluations, and trainer.eval_strategy is no"
        yield Problem(key, what, "set trainer.eval_strategy=steps, or leave it out")


def _reward(config: Config) -> Iterator[Problem]:
    method = config.method.name
    if method in _NO_REWARD:
        yield Problem("scorer.objective", _NO_REWARD[method], "set scorer.objective=loss")
    elif config.trainer.save_total_limit is not None:
        what = (
            "must be null with scorer.objective=reward, which chooses among all checkpoints at "
            f"the end, got {config.trainer.save_total_limit}"
        )
        yield Problem("trainer.save_total_limit", what, "set trainer.save_total_limit=null")
