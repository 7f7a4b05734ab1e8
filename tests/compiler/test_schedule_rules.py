"""What must fit each other over the steps of a run, and what a pod needs to be let do its work."""

from collections.abc import Mapping
from typing import Any

import pytest

from podproof.compiler.environment_rules import switches, tokens
from podproof.compiler.lower import lower
from podproof.compiler.rules import violations
from podproof.compiler.schedule_rules import SCHEDULE_RULES
from podproof.compiler.schema import Config, EvalStrategy
from tests.compiler.conftest import changed

Values = dict[str, Any]

EXTRA = "trainer.extra"
PLATEAU = {"trainer.lr_scheduler_type": "reduce_lr_on_plateau"}
MIN_LR = {"trainer.lr_scheduler_type": "cosine_with_min_lr"}
GALORE = {"trainer.optim": "galore_adamw", "pod.requirements": {"galore_torch": "1.0"}}
LICENSED = {"model.name_or_path": "meta-llama/Llama-3.1-8B"}

# (rule, config, what is changed in it, the key that must be refused)
REFUSED: list[tuple[str, str, Values, str]] = [
    ("warmup", "sft", {"trainer.warmup_steps": 1.5}, "trainer.warmup_steps"),
    ("warmup", "sft", {"trainer.warmup_steps": 0.9}, "trainer.warmup_steps"),
    (
        "warmup",
        "sft",
        {"trainer.warmup_steps": 96, "trainer.max_steps": 96},
        "trainer.warmup_steps",
    ),
    (
        "first_evaluation",
        "sft",
        {"trainer.max_steps": 48, EXTRA: {"eval_delay": 48}},
        "trainer.extra.eval_delay",
    ),
    (
        "first_evaluation",
        "sft",
        {
            "trainer.eval_strategy": EvalStrategy.EPOCH,
            "trainer.num_train_epochs": 2.0,
            "trainer.max_steps": -1,
            EXTRA: {"eval_delay": 2},
        },
        "trainer.extra.eval_delay",
    ),
    ("learning_rate", "sft", {"trainer.learning_rate": 0.3}, "trainer.learning_rate"),
    ("adam", "sft", {"trainer.adam_beta1": 0.999, "trainer.adam_beta2": 0.9}, "trainer.adam_beta2"),
    ("adam", "sft", {"trainer.max_grad_norm": 1e-9}, "trainer.max_grad_norm"),
    ("scheduler", "sft", MIN_LR, "trainer.lr_scheduler_type"),
    ("scheduler", "sft", {EXTRA: {"lr_scheduler_kwargs": "x"}}, f"{EXTRA}.lr_scheduler_kwargs"),
    (
        "scheduler",
        "sft",
        {"trainer.lr_scheduler_type": "cosine", EXTRA: {"lr_scheduler_kwargs": {"min_lr": 1e-6}}},
        f"{EXTRA}.lr_scheduler_kwargs.min_lr",
    ),
    ("optimizer_packages", "sft", {"trainer.optim": "lomo"}, "trainer.optim"),
    ("optimizer_packages", "sft", {"trainer.optim": "adamw_torch_xla"}, "trainer.optim"),
    ("optimizer_packages", "sft", GALORE, "trainer.optim"),
    (
        "switches",
        "rented_sft",
        {"pod.env": {"CUDA_VISIBLE_DEVICES": "0"}},
        "pod.env.CUDA_VISIBLE_DEVICES",
    ),
    ("switches", "rented_sft", {"pod.env": {"HF_HUB_OFFLINE": "1"}}, "pod.env.HF_HUB_OFFLINE"),
    ("switches", "rented_sft", {"pod.env": {"UV_OFFLINE": "true"}}, "pod.env.UV_OFFLINE"),
    ("tokens", "rented_sft", {**LICENSED, "pod.secrets": {}}, "pod.secrets"),
    ("tokens", "rented_sft", {"report.integrations": ("wandb",)}, "report.integrations"),
]

ALLOWED: list[tuple[str, str, Values]] = [
    ("warmup", "sft", {"trainer.warmup_steps": 0.5}),
    ("warmup", "sft", {"trainer.warmup_steps": 95, "trainer.max_steps": 96}),
    ("warmup", "sft", {"trainer.warmup_steps": 10, "trainer.max_steps": 6}),
    ("warmup", "sft", {"trainer.warmup_steps": 1000, "trainer.max_steps": -1}),
    ("first_evaluation", "sft", {"trainer.max_steps": 48, EXTRA: {"eval_delay": 8}}),
    ("first_evaluation", "sft", {"trainer.max_steps": -1, EXTRA: {"eval_delay": 1000}}),
    ("learning_rate", "sft", {"trainer.learning_rate": 0.5, "trainer.optim": "sgd"}),
    ("learning_rate", "sft", {"trainer.learning_rate": 0.2}),
    ("adam", "sft", {"trainer.adam_beta1": 0.95, "trainer.adam_beta2": 0.95}),
    ("adam", "sft", {"trainer.max_grad_norm": 0.0}),
    ("scheduler", "sft", {**PLATEAU, EXTRA: {"lr_scheduler_kwargs": {"patience": 3}}}),
    ("scheduler", "sft", {**MIN_LR, EXTRA: {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}}}),
    ("optimizer_packages", "sft", {"trainer.optim": "paged_adamw_8bit"}),
    ("optimizer_packages", "sft", {**GALORE, EXTRA: {"optim_target_modules": "all-linear"}}),
    ("switches", "sft", {"pod.env": {"CUDA_VISIBLE_DEVICES": ""}}),
    ("switches", "rented_sft", {"pod.env": {"HF_HUB_OFFLINE": "0", "UV_OFFLINE": "False"}}),
    ("tokens", "sft", LICENSED),
    ("tokens", "rented_sft", {**LICENSED, "pod.secrets": {"HF_TOKEN": "hf"}}),
    (
        "tokens",
        "rented_sft",
        {"report.integrations": ("wandb",), "pod.env": {"WANDB_MODE": "offline"}},
    ),
]

RULE_NAMED = {rule.__name__: rule for rule in (*SCHEDULE_RULES, switches, tokens)}


@pytest.mark.parametrize(("rule", "base", "values", "key"), REFUSED)
def test_a_rule_refuses_what_it_is_there_for_by_its_key(
    configs: Mapping[str, Config], rule: str, base: str, values: Values, key: str
) -> None:
    config = changed(configs[base], values)

    assert key in {problem.where for problem in RULE_NAMED[rule](config)}
    assert key in {problem.where for problem in violations(config)}


@pytest.mark.parametrize(("rule", "base", "values"), ALLOWED)
def test_a_rule_lets_pass_what_is_sound(
    configs: Mapping[str, Config], rule: str, base: str, values: Values
) -> None:
    assert list(RULE_NAMED[rule](changed(configs[base], values))) == []


def test_every_rule_is_seen_to_refuse_and_to_let_pass() -> None:
    assert {rule for rule, *_ in REFUSED} == set(RULE_NAMED)
    assert {rule for rule, *_ in ALLOWED} == set(RULE_NAMED)


def test_an_optimizer_of_bitsandbytes_brings_its_package(configs: Mapping[str, Config]) -> None:
    usual = lower(configs["sft"]).requirements
    given = lower(changed(configs["sft"], {"trainer.optim": "paged_adamw_8bit"})).requirements

    assert [item.partition("==")[0] for item in set(given) - set(usual)] == ["bitsandbytes"]
