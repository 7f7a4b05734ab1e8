"""The trainer: the TRL trainer of the method, built from the plan, the rows and the model."""

import copy
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podproof.runtime.errors import BadData, BadPlan, Problem
from podproof.runtime.libraries import prepare_training_libraries
from podproof.runtime.models import LoadedModel, load_model, lora_config
from podproof.runtime.plan import AdapterKind, MethodName, Plan
from podproof.runtime.room import prompt_text, room_checked, room_limit, room_tally
from podproof.runtime.rows import Row, Rows, is_conversation, row_texts
from podproof.runtime.safeguard import Safeguard, SafeguardedTrainer
from podproof.runtime.tally import RowTally

_TRAINER_GPU_SWITCHES = (
    "bf16",
    "fp16",
    "tf32",
    "bf16_full_eval",
    "fp16_full_eval",
    "use_liger_kernel",
    "activation_offloading",
    "deepspeed",
)
_TRAINER_GPU_OPTIMIZERS = ("8bit", "4bit", "paged", "bnb")


@dataclass(frozen=True)
class BuiltTrainer:
    """A TRL trainer ready to train, and what differs from the plan: by this machine, in rows."""

    trainer: Any
    adjustments: tuple[str, ...]


def build_trainer(
    plan: Plan, rows: Rows, output_dir: Path, hooks: object, safeguard: Safeguard
) -> BuiltTrainer:
    """Return the method's trainer, safeguarded, with `hooks` as the first of its callbacks.

    The same plan and rows give the same first weights. Loads the model, so it takes as long as
    that takes. Raises BadData for rows that leave no room for an answer and for missing evaluation
    rows, BadPlan for conversations without a template.
    """
    prepare_training_libraries()
    from transformers import set_seed

    plan, adjustments = adjust_to_machine(plan, has_gpu=_has_gpu())
    _require_evaluation_rows(plan, rows)
    stock_class, config_class = _trainer_classes(plan.method)
    trainer_class = type(stock_class.__name__, (SafeguardedTrainer, stock_class), {})
    config = config_class(**trainer_arguments(plan, output_dir))
    texts = (text for row in rows.train for text in row_texts(row))
    init_options = plan.arguments.get("model_init_kwargs") or {}
    loaded = load_model(
        plan.model, plan.adapter.kind, seed=plan.seed, texts=texts, extra=init_options
    )
    _require_chat_template(rows, loaded.tokenizer)
    limit = room_limit(plan.method, config.max_length, getattr(config, "truncation_mode", None))
    rows, dropped = _with_room_for_answers(plan, rows, loaded.tokenizer, limit)
    callback = as_trainer_callback(hooks)
    # PEFT draws the first weights of an adapter before the trainer sets the seed.
    set_seed(plan.seed)
    trainer = trainer_class(
        args=config,
        processing_class=loaded.tokenizer,
        train_dataset=_as_dataset(rows.train),
        eval_dataset=_as_dataset(rows.eval) if rows.eval else None,
        peft_config=lora_config(plan.adapter),
        callbacks=[callback],
        **_trainer_models(plan, loaded),
    )
    trainer.safeguard = safeguard
    trainer.add_callback(as_trainer_callback(trainer))
    _put_first(trainer, callback)
    return BuiltTrainer(trainer, (*adjustments, *dropped))


def adjust_to_machine(plan: Plan, *, has_gpu: bool) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan as this machine can run it, and what that changed, in words.

    With a GPU nothing changes. Without one everything is computed in float32 on the CPU, and
    what needs CUDA gives way to its plain counterpart.
    """
    if has_gpu:
        return plan, ()
    notices: list[str] = []
    model, adapter = plan.model, plan.adapter
    if model.dtype != "float32":
        notices.append(f"no GPU: model.dtype is float32 instead of {model.dtype}")
        model = dataclasses.replace(model, dtype="float32")
    if model.attn_implementation not in {None, "sdpa", "eager"}:
        notices.append(f"no GPU: attention is sdpa instead of {model.attn_implementation}")
        model = dataclasses.replace(model, attn_implementation="sdpa")
    if adapter.kind is AdapterKind.QLORA:
        notices.append("no GPU: the base model of qlora is not quantized")
        adapter = dataclasses.replace(adapter, kind=AdapterKind.LORA)
    arguments = _arguments_for_cpu(plan.arguments, notices)
    changed = dataclasses.replace(plan, model=model, adapter=adapter, arguments=arguments)
    return changed, tuple(notices)


def trainer_arguments(plan: Plan, output_dir: Path) -> dict[str, Any]:
    """Return the keyword arguments of the method's config class.

    The plan's own arguments, and a few the plan may leave open: the seed, no progress bar, and
    activation checkpointing by its present name (TRL's default, true, comes by a deprecated one).
    """
    arguments = {
        "output_dir": str(output_dir),
        "seed": plan.seed,
        "disable_tqdm": True,
        "activation_checkpointing": plan.arguments.get("gradient_checkpointing", True),
        # Left open it is true under an adapter: one more walk over the graph a step, which finds
        # nothing in a model whose every trained weight takes part in every loss.
        "ddp_find_unused_parameters": False,
        **plan.arguments,
    }
    if plan.method is MethodName.ORPO:
        # Its collator reads columns the model does not; left open, the trainer warns.
        arguments["remove_unused_columns"] = False
    # The first is resolved above; the second belongs to the model, which we load ourselves.
    for name in ("gradient_checkpointing", "model_init_kwargs"):
        arguments.pop(name, None)
    return arguments


def as_trainer_callback(hooks: object) -> Any:
    """Return a TrainerCallback that answers every event, with the on_… methods of `hooks`.

    `hooks` stays the object it is and needs no base class, so it loads without transformers.
    """
    from transformers import TrainerCallback

    callback = type("PodTrainerCallback", (TrainerCallback,), {})()
    for name in dir(hooks):
        if name.startswith("on_"):
            setattr(callback, name, getattr(hooks, name))
    return callback


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _arguments_for_cpu(arguments: Mapping[str, Any], notices: list[str]) -> dict[str, Any]:
    changed = {**arguments, "use_cpu": True, "bf16": False, "dataloader_pin_memory": False}
    for name in _TRAINER_GPU_SWITCHES:
        if arguments.get(name):
            notices.append(f"no GPU: {name} is off")
            changed[name] = False
    if arguments.get("fsdp"):
        notices.append("no GPU: fsdp parts nothing, each process holds the whole model")
    optim = str(arguments.get("optim", ""))
    if any(part in optim for part in _TRAINER_GPU_OPTIMIZERS):
        notices.append(f"no GPU: optim is adamw_torch instead of {optim}")
        changed["optim"] = "adamw_torch"
    # Recomputing activations saves GPU memory; here it would only cost time.
    if "gradient_checkpointing" not in arguments:
        changed.setdefault("activation_checkpointing", False)
    return changed


def _trainer_classes(method: MethodName) -> tuple[Any, Any]:
    if method is MethodName.SFT:
        from trl import SFTConfig, SFTTrainer

        return SFTTrainer, SFTConfig
    if method is MethodName.DPO:
        from trl import DPOConfig, DPOTrainer

        return DPOTrainer, DPOConfig
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    return ORPOTrainer, ORPOConfig


def _trainer_models(plan: Plan, loaded: LoadedModel) -> dict[str, Any]:
    """Return the model, and the frozen copy DPO compares with when no adapter can be lifted off."""
    models = {"model": loaded.model}
    is_full_dpo = plan.method is MethodName.DPO and plan.adapter.kind is AdapterKind.NONE
    if is_full_dpo and not plan.arguments.get("precompute_ref_log_probs"):
        # TRL would load it again by name, which a model made from nothing does not have.
        models["ref_model"] = copy.deepcopy(loaded.model)
    return models


def _as_dataset(rows: tuple[Row, ...]) -> Any:
    from datasets import Dataset

    # Arrow gives each object the keys of all: what differs between rows, as calls of tools do, is
    # kept as JSON, and read back as it was. A column may be absent from the first row.
    names = dict.fromkeys(name for row in rows for name in row.columns)
    columns = {name: [row.columns.get(name) for row in rows] for name in names}
    return Dataset.from_dict(columns, on_mixed_types="use_json")


def _put_first(trainer: Any, callback: Any) -> None:
    """Move the callback to the front, so that reporters see the score it adds to the metrics."""
    callbacks = trainer.callback_handler.callbacks
    callbacks.remove(callback)
    callbacks.insert(0, callback)


def _require_evaluation_rows(plan: Plan, rows: Rows) -> None:
    if not rows.eval and plan.arguments.get("eval_strategy", "no") != "no":
        what = "the plan evaluates, but there are no evaluation rows"
        raise BadData(Problem("data.eval", what, "set data.eval.fraction or data.eval.path"))


def _require_chat_template(rows: Rows, tokenizer: Any) -> None:
    if is_conversation(rows.train[0]) and not tokenizer.chat_template:
        what = "the rows are conversations, and the tokenizer has no chat template"
        raise BadPlan(Problem("model.chat_template", what, "set it to the model's own template"))


def _with_room_for_answers(
    plan: Plan, rows: Rows, tokenizer: Any, limit: int | None
) -> tuple[Rows, tuple[str, ...]]:
    """Leave out rows whose prompt fills `limit` tokens, as many as the plan allows; say so."""
    if limit is None:
        return rows, ()
    judged = [
        _part_with_room(part, tokenizer, limit, room_tally(use), plan.data.max_bad_fraction)
        for part, use in ((rows.train, "trained on"), (rows.eval, "evaluated on"))
    ]
    problems = [problem for _, found, _ in judged for problem in found]
    if problems:
        raise BadData(*problems)
    rows = dataclasses.replace(rows, train=judged[0][0], eval=judged[1][0])
    return rows, tuple(notice for _, _, notices in judged for notice in notices)


def _part_with_room(
    rows: Sequence[Row], tokenizer: Any, limit: int, tally: RowTally, most: float
) -> tuple[tuple[Row, ...], tuple[Problem, ...], tuple[str, ...]]:
    kept = []
    render = functools.partial(
        tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True
    )
    for row in rows:
        prompt = prompt_text(row.columns, render)
        tokens = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        checked = room_checked(row, tokens, tokenizer.bos_token_id, limit)
        tally.add(checked)
        if isinstance(checked, Row):
            kept.append(checked)
    return tuple(kept), *tally.judged(most)
