"""Rules: fields that must fit each other; each is seen to refuse, and seen not to."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from podproof.compiler.argument_rules import REFUSED_ARGUMENTS
from podproof.compiler.data_rules import hub_only
from podproof.compiler.ir import Provider
from podproof.compiler.limits import CARRIED
from podproof.compiler.pod_rules import POD_RULES
from podproof.compiler.rules import RULES, violations
from podproof.compiler.schema import Config, EvalStrategy
from podproof.runtime.plan import (
    AdapterKind,
    DataSource,
    ModelInit,
    Objective,
    PublishTo,
    RowFormat,
    Sink,
)
from tests.compiler.conftest import EXPERIMENTS, RUNPOD_EXPERIMENTS, changed, read_config
from tests.compiler.environment_cases import ALLOWED_ENVIRONMENT, REFUSED_ENVIRONMENT
from tests.compiler.model_cases import ALLOWED_MODEL, REFUSED_MODEL
from tests.compiler.prediction_cases import ALLOWED_PREDICTIONS, REFUSED_PREDICTIONS
from tests.compiler.schedule_cases import ALLOWED_SCHEDULE, REFUSED_SCHEDULE

Values = Mapping[str, Any]

FSDP: Values = {"pod.gpu_count": 2, "trainer.fsdp": True}
ZERO_2: Values = {"zero_optimization": {"stage": 2}}
ZERO_3: Values = {
    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}
}
USE_CPU, PREFETCH = "trainer.extra.use_cpu", "trainer.extra.dataloader_prefetch_factor"
GENERATION = "{% generation %}{{ messages[0]['content'] }}{% endgeneration %}"
ON_THE_HUB: Values = {"publish.to": PublishTo.HUB, "publish.repo_id": "me/tiny"}
FROM_THE_POD: Values = {**ON_THE_HUB, "pod.network_volume": None, "pod.volume_gb": 50}

# (rule, method, what is changed in a sound config, the key that is refused)
REFUSED: list[tuple[str, str, Values, str]] = [
    ("_ranges", "sft", {"trainer.learning_rate": 0.0}, "trainer.learning_rate"),
    ("_json_everywhere", "sft", {"trainer.extra": {"a": math.nan}}, "trainer.extra.a"),
    ("_json_everywhere", "dpo", {"method.loss_weights": (math.inf,)}, "method.loss_weights[0]"),
    ("_json_everywhere", "sft", {"model.config": {"a": [b"x"]}}, "model.config.a[0]"),
    ("_names", "sft", {"name": ""}, "name"),
    ("_names", "sft", {"name": "a\n"}, "name"),
    ("_names", "sft", {"name": "Ünicode"}, "name"),
    ("_names", "sft", {"name": "-a"}, "name"),
    ("_names", "sft", {"name": "a" * 41}, "name"),
    ("_model", "sft", {"model.init": ModelInit.PRETRAINED}, "model.name_or_path"),
    ("_model", "sft", {"model.config": {}}, "model.config"),
    ("_model", "sft", {"model.tokenizer_vocab_size": None}, "model.tokenizer_vocab_size"),
    ("_model", "sft", {"model.dtype": "half"}, "model.dtype"),
    ("_model", "sft", {"model.trust_remote_code": True}, "model.trust_remote_code"),
    ("_data", "sft", {"data.path": ""}, "data.path"),
    ("_data", "sft", {"data.format": RowFormat.PREFERENCE}, "data.format"),
    ("_data", "dpo", {"data.format": RowFormat.TEXT}, "data.format"),
    ("_data", "orpo", {"data.format": RowFormat.MESSAGES}, "data.format"),
    ("_data", "sft", {"data.eval.split": "test"}, "data.eval.split"),
    ("_data", "sft", {"data.eval.path": "eval.jsonl"}, "data.eval"),
    ("_data", "sft", {"data.eval.fraction": None}, "data.eval"),
    ("_trainer", "sft", {"trainer.max_steps": 0}, "trainer.max_steps"),
    ("_trainer", "sft", {"trainer.max_steps": -2}, "trainer.max_steps"),
    ("_trainer", "sft", {"trainer.bf16": True, "trainer.fp16": True}, "trainer.fp16"),
    ("_trainer", "sft", {"trainer.eval_steps": 4, "trainer.save_steps": 8}, "trainer.save_steps"),
    ("_trainer", "sft", {"trainer.eval_steps": 9, "trainer.max_steps": 8}, "trainer.eval_steps"),
    ("_trainer", "sft", {"trainer.extra": {"optim": "sgd"}}, "trainer.extra.optim"),
    ("_trainer", "dpo", {"trainer.extra": {"beta": 1}}, "trainer.extra.beta"),
    ("_trainer", "sft", {"trainer.extra": {"output_dir": "/"}}, "trainer.extra.output_dir"),
    ("_method", "sft", {"method.padding_free": True}, "method.padding_free"),
    ("scorer_rules", "orpo", {"scorer.objective": Objective.REWARD}, "scorer.objective"),
    ("_method", "dpo", {"method.loss_weights": (1.0, 2.0)}, "method.loss_weights"),
    ("_adapter", "rented_sft", {"adapter.target_modules": ()}, "adapter.target_modules"),
    ("_adapter", "rented_sft", {"adapter.target_modules": ("",)}, "adapter.target_modules"),
    ("_adapter", "rented_sft", {"adapter.target_modules": ("q:",)}, "adapter.target_modules"),
    ("_adapter", "sft", {"adapter.kind": AdapterKind.QLORA}, "adapter.kind"),
    ("_adapter", "rented_sft", {"adapter.bias": "some"}, "adapter.bias"),
    ("_recovery", "sft", {"recovery.resume": "nevr"}, "recovery.resume"),
    ("_requirements", "sft", {"pod.requirements": {"a b": "1"}}, "pod.requirements.a b"),
    ("_requirements", "sft", {"pod.requirements": {"a": ">=1"}}, "pod.requirements.a"),
    ("_requirements", "sft", {"pod.requirements": {"a": "latest"}}, "pod.requirements.a"),
    ("_requirements", "sft", {"pod.requirements": {"a": "1.0\n"}}, "pod.requirements.a"),
    (
        "_requirements",
        "sft",
        {"pod.requirements": {"A-b": "1", "a_b": "2"}},
        "pod.requirements.a_b",
    ),
    ("_pod", "rented_sft", {"pod.gpu": ()}, "pod.gpu"),
    ("_pod", "rented_sft", {"pod.gpu": ('NVIDIA "A40"',)}, "pod.gpu"),
    ("_pod", "rented_sft", {"pod.image": ""}, "pod.image"),
    ("_pod", "rented_sft", {"pod.network_volume": "a\\b"}, "pod.network_volume"),
    ("_pod", "rented_sft", {"pod.data_centers": ("EU\n",)}, "pod.data_centers"),
    ("outlives_the_pod", "rented_sft", {"pod.network_volume": None}, "pod.network_volume"),
    ("_off_the_pod", "rented_sft", {"report.sink": Sink.LOCAL}, "report.sink"),
    ("_off_the_pod", "rented_sft", {"data.source": DataSource.JSONL}, "data.path"),
    (
        "_off_the_pod",
        "rented_sft",
        {
            "data.source": DataSource.JSONL,
            "data.path": "/workspace/a.jsonl",
            "data.eval.path": "b.jsonl",
        },
        "data.eval.path",
    ),
    ("published_folder", "sft", {"publish.dir": "../out"}, "publish.dir"),
    ("published_folder", "sft", {"publish.dir": "a/b"}, "publish.dir"),
    ("published_folder", "sft", {"publish.dir": ""}, "publish.dir"),
    ("published_folder", "sft", {"publish.dir": "checkpoint-20"}, "publish.dir"),
    ("published_folder", "sft", {"publish.dir": "quarantine"}, "publish.dir"),
    ("published_folder", "sft", {"publish.dir": "events.jsonl"}, "publish.dir"),
    ("published_folder", "sft", {"publish.dir": "ranks"}, "publish.dir"),
    ("published_folder", "sft", {"publish.dir": "delivery.json"}, "publish.dir"),
    ("published_folder", "sft", {"publish.dir": "delivered.former"}, "publish.dir"),
    ("published_on_the_hub", "sft", {"publish.to": PublishTo.HUB}, "publish.repo_id"),
    *(
        ("published_on_the_hub", "sft", {**ON_THE_HUB, "publish.repo_id": name}, "publish.repo_id")
        for name in ("tiny", "a/b/c", "a/b\n", "../b", "a/b..c", "a/b.git", f"a/{'b' * 95}", "a/-")
    ),
    ("published_on_the_hub", "rented_sft", {**ON_THE_HUB, "pod.secrets": {}}, "pod.secrets"),
    (
        "published_on_the_hub",
        "sft",
        {**ON_THE_HUB, "publish.repo_id": "me/base", "model.name_or_path": "me/base"},
        "publish.repo_id",
    ),
    (
        "outlives_the_pod",
        "rented_sft",
        {**ON_THE_HUB, "pod.network_volume": None, "pod.volume_gb": 0},
        "pod.volume_gb",
    ),
    (
        "outlives_the_pod",
        "rented_sft",
        {**FROM_THE_POD, "data.source": DataSource.JSONL},
        "data.source",
    ),
    ("_skips", "sft", {"gates.skip": {"scorer": " "}}, "gates.skip.scorer"),
    ("unknown_choices", "sft", {"method.loss_type": "ce"}, "method.loss_type"),
    ("unknown_choices", "sft", {"method.packing_strategy": "ffd"}, "method.packing_strategy"),
    ("unknown_choices", "dpo", {"method.loss_type": ("sigmiod",)}, "method.loss_type"),
    ("unknown_choices", "dpo", {"method.truncation_mode": "middle"}, "method.truncation_mode"),
    *(
        ("refused_arguments", "sft", {"trainer.extra": {key: True}}, f"trainer.extra.{key}")
        for key in (*REFUSED_ARGUMENTS, "save_only_model")
    ),
    ("refused_arguments", "rented_sft", {"trainer.extra": {"use_cpu": True}}, USE_CPU),
    ("workers", "sft", {"trainer.extra": {"dataloader_prefetch_factor": 2}}, PREFETCH),
    (
        "quantized_twice",
        "rented_sft",
        {"adapter.kind": AdapterKind.QLORA, "model.gguf_file": "a.gguf"},
        "adapter.kind",
    ),
    ("chat_template", "sft", {"model.chat_template": "{% for x in y %}"}, "model.chat_template"),
    (
        "adapter_targets",
        "sft",
        {"adapter.kind": AdapterKind.LORA, "adapter.target_modules": ("lm_head",)},
        "adapter.target_modules",
    ),
    ("rented_gpus", "rented_sft", {"trainer.bf16": False, "trainer.fp16": True}, "trainer.fp16"),
    ("_sharding", "sft", {"trainer.fsdp": True}, "trainer.fsdp"),
    ("_sharding", "rented_sft", {"trainer.deepspeed": ZERO_2}, "trainer.deepspeed"),
    (
        "_sharding",
        "rented_sft",
        {"pod.gpu_count": 2, "trainer.fsdp": True, "trainer.deepspeed": ZERO_2},
        "trainer.deepspeed",
    ),
    ("_sharding", "sft", {"trainer.fsdp_config": {"version": 2}}, "trainer.fsdp_config"),
    (
        "_fsdp",
        "sft",
        {**FSDP, "trainer.fsdp_config": {"fsdp_state_dict_type": "SHARDED_STATE_DICT"}},
        "trainer.fsdp_config.state_dict_type",
    ),
    (
        "_fsdp",
        "sft",
        {**FSDP, "trainer.fsdp_config": {"version": 1}},
        "trainer.fsdp_config.version",
    ),
    (
        "_fsdp",
        "rented_sft",
        {**FSDP, "trainer.fsdp_config": {"activation_checkpointing": True}},
        "trainer.activation_checkpointing",
    ),
    ("_fsdp", "rented_sft", {**FSDP, "adapter.kind": AdapterKind.QLORA}, "adapter.kind"),
    ("_fsdp", "sft", {**FSDP, "trainer.max_grad_norm": 0.0}, "trainer.max_grad_norm"),
    ("_deepspeed", "sft", {"trainer.deepspeed": ZERO_2}, "trainer.deepspeed"),
    (
        "_deepspeed",
        "rented_sft",
        {"trainer.deepspeed": {**ZERO_2, "train_batch_size": 64}},
        "trainer.deepspeed.train_batch_size",
    ),
    (
        "_deepspeed",
        "rented_sft",
        {"trainer.deepspeed": {**ZERO_2, "scheduler": {"type": "WarmupLR"}}},
        "trainer.deepspeed.scheduler",
    ),
    (
        "_deepspeed",
        "rented_sft",
        {"trainer.deepspeed": {"bf16": {"enabled": "auto"}}},
        "trainer.deepspeed.zero_optimization.stage",
    ),
    (
        "_deepspeed",
        "rented_sft",
        {"trainer.deepspeed": {"zero_optimization": {"stage": 3}}},
        "trainer.deepspeed.zero_optimization.stage3_gather_16bit_weights_on_model_save",
    ),
    (
        "_deepspeed",
        "rented_sft",
        {"trainer.deepspeed": ZERO_3, "adapter.kind": AdapterKind.QLORA},
        "adapter.kind",
    ),
]

# (rule, method, what is changed in a sound config, and is still sound)
ALLOWED: list[tuple[str, str, Values]] = [
    ("_ranges", "sft", {"trainer.save_steps": None}),
    ("_json_everywhere", "sft", {"trainer.extra": {"a": [1, 2.5, "x", None, True]}}),
    ("_names", "sft", {"name": "a" * 40}),
    ("_model", "sft", {"model.trust_remote_code": True, "model.revision": "0123abc"}),
    ("_data", "sft", {"data.format": RowFormat.AUTO}),
    ("_data", "sft", {"trainer.eval_strategy": EvalStrategy.NO, "data.eval.fraction": None}),
    ("_data", "rented_sft", {"data.eval.split": None, "data.eval.fraction": 0.1}),
    ("_trainer", "sft", {"trainer.save_steps": 7, "trainer.eval_steps": 7}),
    ("_trainer", "sft", {"trainer.eval_strategy": EvalStrategy.EPOCH, "trainer.save_steps": 8}),
    ("_trainer", "sft", {"trainer.extra": {"logging_first_step": True}}),
    ("_method", "sft", {"method.padding_free": True, "method.max_length": None}),
    ("scorer_rules", "orpo", {"scorer.objective": Objective.ACCURACY}),
    ("_method", "dpo", {"method.loss_type": ("sigmoid", "sft"), "method.loss_weights": (1.0, 0.5)}),
    ("_recovery", "sft", {"recovery.resume": "/home/me/checkpoint-8"}),
    ("_recovery", "rented_sft", {"recovery.resume": "/workspace/run-1/output/checkpoint-8"}),
    ("_adapter", "sft", {"adapter.target_modules": ("q:",)}),
    ("_adapter", "rented_sft", {"adapter.target_modules": ("q_proj", "layers.0.v_proj")}),
    ("_requirements", "sft", {"pod.requirements": {"flash-attn": "2.8.3+cu13.post1"}}),
    ("_pod", "rented_sft", {"pod.gpu_count": 1, "pod.data_centers": ("EU-RO-1",)}),
    ("_off_the_pod", "rented_sft", {"publish.to": PublishTo.NONE}),
    (
        "_off_the_pod",
        "rented_sft",
        {"data.source": DataSource.JSONL, "data.path": "/workspace/a.jsonl"},
    ),
    ("outlives_the_pod", "sft", {"pod.network_volume": None}),
    ("outlives_the_pod", "rented_sft", FROM_THE_POD),
    ("published_on_the_hub", "sft", {"publish.repo_id": "no owner, and not asked"}),
    ("published_on_the_hub", "sft", ON_THE_HUB),
    ("published_on_the_hub", "sft", {**ON_THE_HUB, "publish.repo_id": "My_Org/a-model.v1_2"}),
    ("published_on_the_hub", "rented_sft", {**ON_THE_HUB, "pod.secrets": {"HF_TOKEN": "hf"}}),
    ("published_folder", "sft", {"publish.dir": "weights-v1.0"}),
    ("_skips", "sft", {"gates.skip": {"scorer": "compared by hand"}}),
    ("unknown_choices", "dpo", {"method.loss_type": ("sigmoid", "sft")}),
    ("refused_arguments", "sft", {"trainer.extra": {"push_to_hub": False}}),
    ("workers", "sft", {"trainer.extra": {"dataloader_prefetch_factor": None}}),
    ("quantized_twice", "rented_sft", {"adapter.kind": AdapterKind.QLORA}),
    ("chat_template", "sft", {"model.chat_template": GENERATION}),
    ("adapter_targets", "orpo", {"adapter.target_modules": ("lm_head",)}),
    ("rented_gpus", "sft", {}),
    ("_sharding", "sft", {"pod.gpu_count": 2}),
    ("_sharding", "sft", {"pod.node_count": 2, "trainer.fsdp": True}),
    ("_fsdp", "sft", {**FSDP, "trainer.fsdp_config": {"state_dict_type": "FULL_STATE_DICT"}}),
    ("_fsdp", "sft", {**FSDP, "trainer.fsdp_config": {"activation_checkpointing": True}}),
    ("_deepspeed", "rented_dpo", {"trainer.deepspeed": {**ZERO_3, "train_batch_size": "auto"}}),
    ("_deepspeed", "rented_sft", {"trainer.deepspeed": ZERO_2, "adapter.kind": AdapterKind.QLORA}),
]

RULE_NAMED = {rule.__name__: rule for rule in RULES}


ALL_REFUSED = [
    *REFUSED,
    *REFUSED_ENVIRONMENT,
    *REFUSED_MODEL,
    *REFUSED_PREDICTIONS,
    *REFUSED_SCHEDULE,
]
ALL_ALLOWED = [
    *ALLOWED,
    *ALLOWED_ENVIRONMENT,
    *ALLOWED_MODEL,
    *ALLOWED_PREDICTIONS,
    *ALLOWED_SCHEDULE,
]


@pytest.mark.parametrize(("rule", "base", "values", "key"), ALL_REFUSED)
def test_a_rule_refuses_what_it_is_there_for_by_its_key(
    configs: Mapping[str, Config], rule: str, base: str, values: Values, key: str
) -> None:
    config = changed(configs[base], values)

    refused = {problem.where for problem in RULE_NAMED[rule](config)}

    assert key in refused
    assert key in {problem.where for problem in violations(config)}


@pytest.mark.parametrize(("rule", "base", "values"), ALL_ALLOWED)
def test_a_rule_lets_pass_what_is_sound(
    configs: Mapping[str, Config], rule: str, base: str, values: Values
) -> None:
    assert list(RULE_NAMED[rule](changed(configs[base], values))) == []


def test_every_rule_is_seen_to_refuse_and_to_let_pass() -> None:
    # These have files of their own: test_pod_rules.py, test_data_rules.py.
    names = {rule.__name__ for rule in RULES if rule not in {*POD_RULES, hub_only}}

    assert {rule for rule, *_ in ALL_REFUSED} == names
    assert {rule for rule, *_ in ALL_ALLOWED} == names


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_shipped_experiment_breaks_no_rule(experiment: str) -> None:
    volume = ["pod.network_volume=abc"] if experiment in RUNPOD_EXPERIMENTS else []

    config = read_config(f"experiment={experiment}", *volume)

    assert violations(config) == ()
    assert (config.pod.provider is Provider.RUNPOD) == (experiment in RUNPOD_EXPERIMENTS)


def test_all_broken_rules_are_told_at_once_sorted_by_key(configs: Mapping[str, Config]) -> None:
    wrong = {"trainer.learning_rate": -1.0, "name": "?", "data.path": "", "publish.dir": "/"}

    problems = violations(changed(configs["sft"], wrong))

    assert [problem.where for problem in problems] == sorted(wrong)


@pytest.mark.parametrize("section", ["env", "secrets"])
def test_a_value_that_may_be_a_secret_is_not_shown(
    configs: Mapping[str, Config], section: str
) -> None:
    config = changed(configs["sft"], {f"pod.{section}": {"TOKEN": 'hf_private"'}})

    problems = violations(config)

    assert problems[0].where == f"pod.{section}.TOKEN"
    assert "hf_private" not in str(problems)


def test_what_a_plan_argument_of_a_method_is_called_is_told(configs: Mapping[str, Config]) -> None:
    (problem,) = violations(changed(configs["dpo"], {"trainer.extra": {"beta": 0.3}}))

    assert problem.way_out == "set method.beta"


def test_the_alphabet_for_rented_pods_is_everything_but_what_the_sdk_would_break() -> None:
    refused = [chr(code) for code in range(0x250) if not CARRIED.fullmatch(chr(code))]

    assert refused == ["\0", "\n", "\r", '"', "\\"]
