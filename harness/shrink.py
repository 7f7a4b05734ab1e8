"""A plan made small: the same method, scorer, adapter and architecture, a few steps, on a CPU.

What is proven full is the script's text; what changes is the plan it is given. Everything that
differs by more than its size is said in a note, since it was not proven.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

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
LAYERS = 2

# The sizes of a config.json by all their names: two heads of 16, and what must fit them.
_SIZES: Mapping[str, int] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 2),
    **dict.fromkeys(("head_dim", "v_head_dim", "qk_nope_head_dim"), 16),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    "qk_rope_head_dim": 8,
    "qk_head_dim": 24,
}
_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")
# A model no wider than this is small, and its sizes hang together in ways of its own.
_NARROW = 256
# Those that are lowered to this, but never raised.
_MOST: Mapping[str, int] = {
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"), 64),
    **dict.fromkeys(("moe_intermediate_size", "intermediate_size_mlp"), 64),
    "shared_expert_intermediate_size": 64,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "max_window_layers"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
    "tokenizer_vocab_size": 512,
}
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_SHARED_HEADS = ("num_key_value_heads", "num_kv_heads")
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_ROPE_PAIRS = 8  # one factor for each pair of a head's numbers

STAND_IN: Mapping[str, Any] = {"model_type": "llama", "tie_word_embeddings": True}

# Names that tell their architecture, for models whose config is not at hand.
_FAMILIES: Mapping[str, str] = {
    r"meta-llama/(Meta-)?Llama-(2|3|3\.1|3\.3)-\d+b(-.*)?": "llama",
    r"meta-llama/Llama-3\.2-[13]B(-.*)?": "llama",
    r"mistralai/Mistral-(7B|Nemo)-.*": "mistral",
    r"mistralai/Mixtral-8x(7|22)B-.*": "mixtral",
    r"Qwen/Qwen2(\.5)?-(Coder-|Math-)?[\d.]+B(-Instruct)?": "qwen2",
    r"Qwen/Qwen3-[\d.]+B(-Base)?": "qwen3",
    r"Qwen/Qwen3-[\d.]+B-A[\d.]+B(-.*)?": "qwen3_moe",
    r"google/gemma-2-\d+b(-it)?": "gemma2",
    r"HuggingFaceTB/SmolLM2-[\d.]+[MB](-Instruct)?": "llama",
    r"HuggingFaceTB/SmolLM3-3B(-Base)?": "smollm3",
    r"(openai-community/)?(distil)?gpt2(-medium|-large|-xl)?": "gpt2",
}

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


def family_of(name: str) -> str | None:
    """Return the `model_type` that a well-known hub id tells of; None for any other name.

    >>> family_of("Qwen/Qwen3-8B"), family_of("Qwen/Qwen3-VL-8B")
    ('qwen3', None)
    """
    matches = (kind for form, kind in _FAMILIES.items() if re.fullmatch(f"(?i){form}", name))
    return next(matches, None)


def shrunken_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's config with two small layers, and everything else as it was.

    Layers that are narrow by themselves keep their widths and heads, so that a config whose sizes
    do not fit each other is not mended here, nor one whose sizes do broken.

    Heads that share keys go on to share them, layers of several kinds stay of several kinds, and
    the vocabulary keeps its size, for a tokenizer belongs to it.

    >>> small = shrunken_config({"model_type": "qwen3", "hidden_size": 4096, "head_dim": 128})
    >>> small["hidden_size"], small["head_dim"], small["model_type"]
    (32, 16, 'qwen3')
    """
    layers = next((config[name] for name in _LAYER_COUNTS if name in config), None)
    kept = set(_SIZES) - set(_LAYER_COUNTS) if _is_narrow(config) else set()
    small = {
        name: value if name in kept else _shrunken_value(name, value, layers)
        for name, value in config.items()
    }
    if kept:
        return small
    heads = next((config[name] for name in _HEADS if config.get(name)), None)
    for name in _SHARED_HEADS:
        if isinstance(config.get(name), int):
            small[name] = 2 if heads is None or config[name] == heads else 1
    return small


def _is_narrow(config: Mapping[str, Any]) -> bool:
    width = next((config[name] for name in _WIDTHS if name in config), None)
    return isinstance(width, int) and width <= _NARROW


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
            tokenizer_vocab_size=_MOST["tokenizer_vocab_size"],
        ),
    )


def without_targets(plan: Plan) -> Plan:
    """Return the plan with an adapter that fits any model."""
    if plan.adapter.kind is AdapterKind.NONE:
        return plan
    targets = AdapterPlan().target_modules
    return replace(plan, adapter=replace(plan.adapter, target_modules=targets, modules_to_save=()))


def _shrunken_value(name: str, value: Any, layers: Any) -> Any:
    if isinstance(value, Mapping) and "rope" in name:
        return {key: _shrunken_rope(item) for key, item in value.items()}
    if isinstance(value, list) and layers is not None and len(value) == layers:
        return _two_of(value)
    if isinstance(value, list) and name in {"moe_layers", "mlp_only_layers"}:
        return [index for index in value if index < LAYERS]
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    return min(value, _MOST[name]) if name in _MOST else _SIZES.get(name, value)


def _shrunken_rope(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shrunken_rope(item) for key, item in value.items()}
    return value[:_ROPE_PAIRS] if isinstance(value, list) else value


def _two_of(values: list[Any]) -> list[Any]:
    """Return what two layers are, so that kinds which differ are both there."""
    kinds = [value for index, value in enumerate(values) if value not in values[:index]]
    return (kinds + values)[:LAYERS]


def _kept(arguments: Mapping[str, Any]) -> dict[str, Any]:
    out = {*_LEFT_OUT, *_UNSAID}
    kept = {key: value for key, value in arguments.items() if key not in out}
    return {**kept, "report_to": "none"}


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
    return [f"{name} left out" for name in _LEFT_OUT if arguments.get(name)]
