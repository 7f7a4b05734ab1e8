"""A plan made small: the same method, scorer, adapter and architecture, a few steps, on a CPU.

What is proven full is the script's text; what changes is the plan it is given. Everything that
differs by more than its size is said in a note, since it was not proven.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from podproof.compiler.optimizers import package_of
from podproof.runtime.plan import (
    AdapterKind,
    AdapterPlan,
    DataPlan,
    ModelInit,
    ModelPlan,
    Plan,
    PublishTo,
    RecoveryPlan,
    ReportPlan,
    Sink,
)

# Eight steps, four evaluations and as many checkpoints, so that rotation has something to remove.
STEPS = 8
EVAL_STEPS = 2
EPOCHS = 3.0
_STAND_IN_VOCABULARY = 512

# What asks for a network, another process or minutes of compiling: left out, and said.
_LEFT_OUT = (
    "fsdp",
    "fsdp_config",
    "deepspeed",
    "torch_compile",
    "torch_compile_backend",
    "torch_compile_mode",
    "push_to_hub",
)
# Left out without a word: they say on how many processes something is done, or to whom it is told.
_UNSAID = ("dataset_num_proc", "ddp_backend", "report_to")
# These have no meaning in so short a run.
_OF_LONG_RUNS = ("eval_delay", "logging_strategy", "lr_scheduler_kwargs")


@dataclass(frozen=True)
class Shrunken:
    """A plan made small, and in words what of the original was not tried."""

    plan: Plan
    notes: tuple[str, ...] = ()


def plan_to_build(plan: Plan, data: DataPlan) -> Shrunken:
    """Return the plan for the rows of `data`, its arguments as they are where one CPU takes them.

    Its model is made small elsewhere.
    """
    shrunken = _shrunken_plan(plan, data)
    return replace(shrunken, plan=replace(shrunken.plan, arguments=_kept(plan.arguments)))


def plan_to_train(plan: Plan, data: DataPlan) -> Shrunken:
    """Return the plan for the rows of `data`, with few steps; its model is made small elsewhere.

    The learning rate rises until it is far too high, so that the best checkpoint is rarely the
    last one, and choosing, keeping and delivering it have something to get wrong.
    """
    shrunken = _shrunken_plan(plan, data)
    return replace(shrunken, plan=replace(shrunken.plan, arguments=_few_steps(plan.arguments)))


def _shrunken_plan(plan: Plan, data: DataPlan) -> Shrunken:
    notes = [*_processes(plan), *_arguments_left_out(plan.arguments)]
    publish, recovery = plan.publish, plan.recovery
    if publish.to is PublishTo.HUB:
        notes.append("published to a folder instead of the hub")
        publish = replace(publish, to=PublishTo.DIR, repo_id=None)
    if plan.recovery.resume not in {"auto", "never"}:
        notes.append(f"begun from nothing instead of {plan.recovery.resume}")
        recovery = RecoveryPlan(oom=recovery.oom, nonfinite=recovery.nonfinite)
    predictions = replace(
        plan.predictions,
        samples=min(plan.predictions.samples, 2),
        every=1,
        max_new_tokens=min(plan.predictions.max_new_tokens, 8),
    )
    shrunken = replace(
        plan,
        data=data,
        predictions=predictions,
        recovery=recovery,
        report=ReportPlan(sink=Sink.NONE),
        publish=publish,
        gpu_count=1,
        node_count=1,
    )
    return Shrunken(shrunken, tuple(notes))


def with_stand_in(plan: Plan, config: Mapping[str, Any]) -> Plan:
    """Return the plan with a model of that config drawn at random, and a tokenizer of its own."""
    return replace(
        plan,
        model=ModelPlan(
            dtype=plan.model.dtype,
            attn_implementation=plan.model.attn_implementation,
            chat_template=plan.model.chat_template,
            init=ModelInit.RANDOM,
            config=dict(config),
            tokenizer_vocab_size=_STAND_IN_VOCABULARY,
        ),
    )


def without_targets(plan: Plan) -> Plan:
    """Return the plan with an adapter that fits any model."""
    if plan.adapter.kind is AdapterKind.NONE:
        return plan
    targets = AdapterPlan().target_modules
    return replace(plan, adapter=replace(plan.adapter, target_modules=targets, modules_to_save=()))


def _kept(arguments: Mapping[str, Any]) -> dict[str, Any]:
    out = {*_LEFT_OUT, *_UNSAID}
    if _absent_package(arguments) is not None:
        out |= {"optim", "optim_args", "optim_target_modules"}
    kept = {key: value for key, value in arguments.items() if key not in out}
    return {**kept, "report_to": "none"}


def _absent_package(arguments: Mapping[str, Any]) -> str | None:
    """Return the package that the optimizer needs when it is not installed here, as on the pod."""
    package = package_of(str(arguments.get("optim", "")))
    is_there = package is None or any(metadata.distributions(name=package))
    return None if is_there else package


def _few_steps(arguments: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in _kept(arguments).items() if key not in _OF_LONG_RUNS}
    kept |= {
        "per_device_train_batch_size": min(2, arguments.get("per_device_train_batch_size", 2)),
        "per_device_eval_batch_size": min(2, arguments.get("per_device_eval_batch_size", 2)),
        "gradient_accumulation_steps": min(2, arguments.get("gradient_accumulation_steps", 1)),
        "dataloader_num_workers": min(1, arguments.get("dataloader_num_workers", 0)),
        "logging_steps": 1,
        "max_steps": STEPS,
        "learning_rate": 0.2,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": STEPS,
    }
    if arguments.get("packing"):
        # Few rows may make one sequence, which would not fill a batch.
        kept["dataloader_drop_last"] = False
    if arguments.get("eval_strategy") == "epoch":
        return {**kept, "max_steps": -1, "num_train_epochs": EPOCHS}
    steps = {"save_steps": EVAL_STEPS}
    if arguments.get("eval_strategy", "no") != "no":
        steps["eval_steps"] = EVAL_STEPS
    return {**kept, **steps}


def _processes(plan: Plan) -> list[str]:
    processes = plan.gpu_count * plan.node_count
    return [f"one process instead of {processes}"] if processes > 1 else []


def _arguments_left_out(arguments: Mapping[str, Any]) -> list[str]:
    notes = [f"{name} left out" for name in _LEFT_OUT if arguments.get(name)]
    package = _absent_package(arguments)
    if package is not None:
        notes.append(f"optim={arguments['optim']} left out: {package} is not installed here")
    return notes
