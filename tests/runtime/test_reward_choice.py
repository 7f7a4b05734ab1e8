"""The last choice: a real DPO run ends with the weights of the checkpoint its margins chose."""

import dataclasses
from pathlib import Path
from typing import Any

from tests.runtime.test_trainers import built_with, plan_for

from podproof.runtime.callback import PodCallback, StopRequest
from podproof.runtime.plan import MethodName, Objective, ScorerPlan

REWARD = ScorerPlan(objective=Objective.REWARD, reward_tolerance=1.0)


class WiderMarginsFirst(PodCallback):
    """The pod's callback, told of margins that shrink, so that the loss would choose otherwise."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        margin = float(-state.global_step)
        for entry in (logs, state.log_history[-1]):
            entry.update({"eval_rewards/margins": margin} if "eval_loss" in entry else {})
        super().on_log(args, state, control, logs=logs, **kwargs)


def heard(*_: object, **__: object) -> None:
    """Stand in for the reporter."""


def test_a_real_dpo_run_ends_with_the_weights_of_the_widest_margin(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    plan = plan_for(MethodName.DPO, max_steps=6, learning_rate=0.001, save_total_limit=None)
    callback = WiderMarginsFirst(REWARD, heard, StopRequest())
    trainer = built_with(dataclasses.replace(plan, scorer=REWARD), tmp_path, callback).trainer

    trainer.train()

    weights = trainer.model.state_dict()
    equal = {
        path.parent.name
        for path in tmp_path.glob("checkpoint-*/model.safetensors")
        if all(torch.equal(weights[name], value) for name, value in load_file(path).items())
    }
    assert callback.failures == {}
    assert callback.scores.best_step == 6
    assert callback.choice is not None
    assert callback.choice.step == 2
    assert equal == {"checkpoint-2"}
