"""The trainers: real TRL trainers, built from a plan and run for a few steps on a tiny model."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from podproof.runtime.arithmetic import arithmetic
from podproof.runtime.callback import StopRequest
from podproof.runtime.deadline import DeadlineWatch
from podproof.runtime.errors import BadData, BadPlan
from podproof.runtime.events import EventKind
from podproof.runtime.plan import (
    AdapterKind,
    AdapterPlan,
    DataPlan,
    MethodName,
    ModelInit,
    ModelPlan,
    NonfinitePlan,
    Plan,
    PredictionsPlan,
    PublishPlan,
    RecoveryPlan,
    ReportPlan,
    RowFormat,
    ScorerPlan,
)
from podproof.runtime.rows import Row, Rows
from podproof.runtime.safeguard import Safeguard
from podproof.runtime.sealing import CheckpointSealer
from podproof.runtime.trainers import (
    BuiltTrainer,
    adjust_to_machine,
    as_trainer_callback,
    build_trainer,
    trainer_arguments,
)

TINY_LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
}
ARGUMENTS = {
    "max_length": 64,
    "max_steps": 3,
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "learning_rate": 0.01,
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "steps",
    "save_steps": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_checkpoint_score",
    "greater_is_better": True,
    "report_to": "none",
}
SHORT_RUN = {
    "max_length": 32,
    "per_device_train_batch_size": 2,
    "save_strategy": "no",
    "report_to": "none",
}


class ScoringHooks:
    """Hooks as the pod's callback has them: some events only, no base class."""

    def __init__(self) -> None:
        self.scored_steps: list[int] = []

    def on_log(self, _args: Any, state: Any, _control: Any, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "eval_loss" in logs:
            # The first evaluation is made the best, so that it is not the last one by chance.
            logs["eval_checkpoint_score"] = float(-state.global_step)
            self.scored_steps.append(state.global_step)


def plan_for(method: MethodName, kind: AdapterKind = AdapterKind.NONE, **arguments: Any) -> Plan:
    return Plan(
        name="tiny",
        seed=5,
        method=method,
        model=ModelPlan(
            init=ModelInit.RANDOM, config=TINY_LLAMA, tokenizer_vocab_size=300, dtype="float32"
        ),
        data=DataPlan(),
        adapter=AdapterPlan(kind=kind, r=2),
        arguments={**ARGUMENTS, **arguments},
        scorer=ScorerPlan(),
        recovery=RecoveryPlan(),
        predictions=PredictionsPlan(),
        report=ReportPlan(),
        publish=PublishPlan(),
        gpu_count=1,
        node_count=1,
        config_sha256="0",
    )


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def message_row(number: int) -> Row:
    messages = [turn("user", f"What is {number}?"), turn("assistant", f"It is {number}.")]
    return Row(f"rows:{number}", {"messages": messages})


def pair_row(number: int) -> Row:
    columns = {
        "prompt": [turn("user", f"What is {number}?")],
        "chosen": [turn("assistant", f"It is {number}.")],
        "rejected": [turn("assistant", "It is nothing at all.")],
    }
    return Row(f"rows:{number}", columns)


MESSAGES = Rows(
    tuple(message_row(number) for number in range(7)),
    tuple(message_row(number) for number in range(7, 10)),
    RowFormat.MESSAGES,
)
PAIRS = Rows(
    tuple(pair_row(number) for number in range(7)),
    tuple(pair_row(number) for number in range(7, 10)),
    RowFormat.PREFERENCE,
)
ROWS = {MethodName.SFT: MESSAGES, MethodName.DPO: PAIRS, MethodName.ORPO: PAIRS}


def no_report(kind: EventKind, **_event: Any) -> None:
    """Hear nothing: what a safeguard reports is not looked at here."""


def no_writing() -> None:
    """Write nothing: nothing is reported."""


def built_from(plan: Plan, rows: Rows, folder: Path, hooks: object | None = None) -> BuiltTrainer:
    sealer = CheckpointSealer(no_report)
    deadline = DeadlineWatch({}, plan.publish.to)
    safeguard = Safeguard(
        StopRequest(), NonfinitePlan(), sealer, no_report, plan.config_sha256, deadline, no_writing
    )
    return build_trainer(plan, rows, folder, hooks or ScoringHooks(), safeguard)


def built_with(plan: Plan, folder: Path, hooks: object | None = None) -> BuiltTrainer:
    return built_from(plan, ROWS[plan.method], folder, hooks)


@pytest.mark.parametrize("kind", [AdapterKind.NONE, AdapterKind.LORA])
@pytest.mark.parametrize("method", list(MethodName))
def test_a_trainer_trains_is_scored_and_ends_with_the_chosen_weights(
    method: MethodName, kind: AdapterKind, tmp_path: Path
) -> None:
    hooks = ScoringHooks()
    trainer = built_with(plan_for(method, kind), tmp_path, hooks).trainer

    trainer.train()

    assert hooks.scored_steps == [2, 3]
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert math.isfinite(trainer.state.log_history[-1]["train_loss"])


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_train_epochs": 2},
        {"num_train_epochs": 1.5, "gradient_accumulation_steps": 3},
        {"num_train_epochs": 1, "dataloader_drop_last": True},
        {"num_train_epochs": 0.1},
        {"max_steps": 3, "num_train_epochs": 9},
    ],
)
def test_the_arithmetic_is_that_of_the_real_trainer(
    arguments: dict[str, Any], tmp_path: Path
) -> None:
    plan = dataclasses.replace(plan_for(MethodName.SFT), arguments={**SHORT_RUN, **arguments})
    trainer = built_with(plan, tmp_path).trainer

    trainer.train()

    assert trainer.state.max_steps == arithmetic(plan, len(MESSAGES.train)).total_steps


def test_evaluations_and_saves_are_as_many_as_counted(tmp_path: Path) -> None:
    plan = plan_for(MethodName.SFT, max_steps=-1, num_train_epochs=2, eval_steps=3, save_steps=3)
    hooks = ScoringHooks()
    numbers = arithmetic(plan, len(MESSAGES.train))

    built_with(plan, tmp_path, hooks).trainer.train()

    assert len(hooks.scored_steps) == numbers.evaluations
    assert len(list(tmp_path.glob("checkpoint-*"))) == numbers.saves


def test_the_callback_comes_before_all_others(tmp_path: Path) -> None:
    trainer = built_with(plan_for(MethodName.SFT), tmp_path).trainer

    assert type(trainer.callback_handler.callbacks[0]).__name__ == "PodTrainerCallback"


def test_hooks_keep_their_state_and_need_not_know_every_event() -> None:
    hooks = ScoringHooks()
    callback = as_trainer_callback(hooks)
    state = type("State", (), {"global_step": 4})()

    callback.on_log(None, state, None, logs={"eval_loss": 1.0})
    callback.on_train_end(None, state, None)

    assert hooks.scored_steps == [4]


def test_without_evaluation_rows_a_plan_that_evaluates_is_refused(tmp_path: Path) -> None:
    rows = Rows(MESSAGES.train, (), RowFormat.MESSAGES)

    with pytest.raises(BadData, match="no evaluation rows"):
        built_from(plan_for(MethodName.SFT), rows, tmp_path)


def test_a_plan_that_does_not_evaluate_needs_no_evaluation_rows(tmp_path: Path) -> None:
    plan = dataclasses.replace(plan_for(MethodName.SFT), arguments={**SHORT_RUN, "max_steps": 1})
    rows = Rows(MESSAGES.train, (), RowFormat.MESSAGES)

    built = built_from(plan, rows, tmp_path)

    assert built.trainer.eval_dataset is None


LONG_QUESTION = "What is this? " * 40
TEXT_PAIR = {"prompt": LONG_QUESTION, "chosen": "a", "rejected": "b"}
TURNS_PAIR = {
    "prompt": [turn("user", LONG_QUESTION)],
    "chosen": [turn("assistant", "a")],
    "rejected": [turn("assistant", "b")],
}
SHARED_PAIR = {
    "chosen": [turn("user", LONG_QUESTION), turn("assistant", "a")],
    "rejected": [turn("user", LONG_QUESTION), turn("assistant", "b")],
}


@pytest.mark.parametrize("columns", [TEXT_PAIR, TURNS_PAIR, SHARED_PAIR])
@pytest.mark.parametrize("method", [MethodName.DPO, MethodName.ORPO])
def test_prompts_that_leave_no_room_for_an_answer_are_refused_by_row(
    method: MethodName, columns: dict[str, Any], tmp_path: Path
) -> None:
    rows = Rows((Row("rows:2", columns),), PAIRS.eval, RowFormat.PREFERENCE)

    with pytest.raises(BadData, match=r"rows:2: the prompt has .* leaves none") as refusal:
        built_from(plan_for(method), rows, tmp_path)

    assert len(refusal.value.problems) == 2
    assert refusal.value.problems[-1].where == "method.max_length"


def test_prompts_without_room_are_dropped_up_to_the_share_and_told(tmp_path: Path) -> None:
    plan = plan_for(MethodName.ORPO)
    plan = dataclasses.replace(plan, data=DataPlan(max_bad_fraction=0.2))
    rows = Rows((*PAIRS.train, Row("rows:9", TEXT_PAIR)), PAIRS.eval, RowFormat.PREFERENCE)

    built = built_from(plan, rows, tmp_path)

    assert len(built.trainer.train_dataset) == len(PAIRS.train)
    assert "1 of 8 rows cannot be trained on" in built.adjustments[-1]


def test_orpo_without_max_length_is_held_to_the_length_it_cuts_at(tmp_path: Path) -> None:
    long_pair = Row("rows:9", {**TURNS_PAIR, "prompt": [turn("user", LONG_QUESTION * 9)]})
    rows = Rows((*PAIRS.train, long_pair), PAIRS.eval, RowFormat.PREFERENCE)

    with pytest.raises(BadData, match="max_length=512"):
        built_from(plan_for(MethodName.ORPO, max_length=None), rows, tmp_path)


@pytest.mark.filterwarnings("ignore:The `'keep_end'` truncation mode:FutureWarning")
def test_dpo_that_keeps_the_end_may_have_long_prompts(tmp_path: Path) -> None:
    rows = Rows((*PAIRS.train, Row("rows:9", TURNS_PAIR)), PAIRS.eval, RowFormat.PREFERENCE)
    plan = plan_for(MethodName.DPO, truncation_mode="keep_end")

    built = built_from(plan, rows, tmp_path)

    assert len(built.trainer.train_dataset) == 8


def test_conversations_need_a_chat_template(tmp_path: Path) -> None:
    first = built_with(plan_for(MethodName.SFT), tmp_path / "first").trainer
    first.processing_class.chat_template = None
    first.save_model(str(tmp_path / "bare"))
    model = ModelPlan(name_or_path=str(tmp_path / "bare"), dtype="float32")
    plan = dataclasses.replace(plan_for(MethodName.SFT), model=model)

    with pytest.raises(BadPlan, match="no chat template"):
        built_with(plan, tmp_path / "second")


def test_with_a_gpu_the_plan_stands() -> None:
    plan = plan_for(MethodName.SFT, AdapterKind.QLORA, bf16=True)

    assert adjust_to_machine(plan, has_gpu=True) == (plan, ())


def test_without_a_gpu_what_needs_one_gives_way_and_is_told() -> None:
    plan = plan_for(MethodName.SFT, AdapterKind.QLORA, bf16=True, optim="paged_adamw_8bit")
    model = ModelPlan(name_or_path="m", attn_implementation="flash_attention_2")

    adjusted, notices = adjust_to_machine(dataclasses.replace(plan, model=model), has_gpu=False)

    assert notices == (
        "no GPU: model.dtype is float32 instead of bfloat16",
        "no GPU: attention is sdpa instead of flash_attention_2",
        "no GPU: the base model of qlora is not quantized",
        "no GPU: bf16 is off",
        "no GPU: optim is adamw_torch instead of paged_adamw_8bit",
    )
    assert (adjusted.model.dtype, adjusted.model.attn_implementation) == ("float32", "sdpa")
    assert adjusted.adapter.kind is AdapterKind.LORA
    assert (adjusted.arguments["bf16"], adjusted.arguments["optim"]) == (False, "adamw_torch")


def test_without_a_gpu_nothing_is_sharded_and_that_is_told() -> None:
    zero = {"zero_optimization": {"stage": 2}}
    plan = plan_for(MethodName.SFT, deepspeed=zero, fsdp=True)

    adjusted, notices = adjust_to_machine(plan, has_gpu=False)

    assert adjusted.arguments["deepspeed"] is False
    assert notices == (
        "no GPU: deepspeed is off",
        "no GPU: fsdp parts nothing, each process holds the whole model",
    )


def test_a_plan_made_for_the_cpu_needs_no_notice() -> None:
    adjusted, notices = adjust_to_machine(plan_for(MethodName.SFT), has_gpu=False)

    assert notices == ()
    assert adjusted.arguments["use_cpu"]


def test_what_the_plan_leaves_open_is_filled_in(tmp_path: Path) -> None:
    arguments = trainer_arguments(plan_for(MethodName.SFT), tmp_path)

    assert arguments["output_dir"] == str(tmp_path)
    assert arguments["seed"] == 5
    assert arguments["activation_checkpointing"] is True
    assert arguments["ddp_find_unused_parameters"] is False


def test_gradient_checkpointing_is_passed_on_by_its_present_name(tmp_path: Path) -> None:
    plan = plan_for(MethodName.SFT, gradient_checkpointing=False)

    arguments = trainer_arguments(plan, tmp_path)

    assert arguments["activation_checkpointing"] is False
    assert "gradient_checkpointing" not in arguments


def test_arguments_of_the_model_do_not_reach_the_trainer(tmp_path: Path) -> None:
    plan = plan_for(MethodName.ORPO, model_init_kwargs={"use_kernels": True})

    arguments = trainer_arguments(plan, tmp_path)

    assert "model_init_kwargs" not in arguments
    assert arguments["remove_unused_columns"] is False
