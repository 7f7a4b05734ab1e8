"""What a config must satisfy to train on several GPUs: FSDP, DeepSpeed, and what they exclude."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from podproof.compiler.schema import Config, DpoMethod
from podproof.runtime.errors import Problem
from podproof.runtime.plan import AdapterKind

# What the plan's own keys decide in a DeepSpeed config. The trainer fills in what says `auto`, and
# DeepSpeed insists on finding them; halving the batch needs them left open.
DEEPSPEED_OURS: Mapping[str, str] = {
    "train_batch_size": "trainer.per_device_train_batch_size",
    "train_micro_batch_size_per_gpu": "trainer.per_device_train_batch_size",
    "gradient_accumulation_steps": "trainer.gradient_accumulation_steps",
    "gradient_clipping": "trainer.max_grad_norm",
}
_DEEPSPEED_NOT_HERE: Mapping[str, str] = {
    "optimizer": "trainer.optim",
    "scheduler": "trainer.lr_scheduler_type",
}


def process_count(config: Config) -> int:
    """Return how many processes train: one for each GPU of each node."""
    return config.pod.gpu_count * config.pod.node_count


def _sharding(config: Config) -> Iterator[Problem]:
    trainer = config.trainer
    chosen = [name for name in ("fsdp", "deepspeed") if getattr(trainer, name)]
    if len(chosen) > 1:
        what = "FSDP and DeepSpeed exclude each other"
        yield Problem("trainer.deepspeed", what, "set trainer.fsdp=false")
    if trainer.fsdp_config and not trainer.fsdp:
        what = "is not looked at without trainer.fsdp"
        yield Problem("trainer.fsdp_config", what, "set trainer.fsdp=true")
    for name in chosen:
        if process_count(config) == 1:
            what = "shards a model over several GPUs, and there is one"
            yield Problem(f"trainer.{name}", what, "set pod.gpu_count=2, or leave it out")


def _fsdp(config: Config) -> Iterator[Problem]:
    trainer = config.trainer
    if not trainer.fsdp:
        return
    options = {key.removeprefix("fsdp_"): value for key, value in trainer.fsdp_config.items()}
    layout = options.get("state_dict_type", "FULL_STATE_DICT")
    if layout != "FULL_STATE_DICT":
        what = f"{layout} leaves no weights in a checkpoint that could be delivered"
        yield Problem("trainer.fsdp_config.state_dict_type", what, "leave it out: FULL_STATE_DICT")
    if int_or_none(options.get("version", 2)) != 2:  # noqa: PLR2004 - FSDP2's own number
        what = f"the pinned libraries are tried with FSDP2 only, got {options['version']!r}"
        yield Problem("trainer.fsdp_config.version", what, "leave it out")
    if trainer.activation_checkpointing and options.get("activation_checkpointing"):
        what = "is on in trainer.fsdp_config too, and the trainer refuses both"
        way_out = "set trainer.activation_checkpointing=false"
        yield Problem("trainer.activation_checkpointing", what, way_out)
    if config.adapter.kind is AdapterKind.QLORA:
        what = "4-bit weights, as they are loaded here, cannot be sharded by FSDP"
        yield Problem("adapter.kind", what, "set adapter.kind=lora, or trainer.fsdp=false")
    if trainer.max_grad_norm <= 0:
        # The norm that clipping takes is over all shards; without it one rank could skip a step
        # for a NaN in its own shard, and the others take it.
        what = "must be above 0 with FSDP, got 0"
        yield Problem("trainer.max_grad_norm", what, "set trainer.max_grad_norm=1.0")


def int_or_none(value: object) -> int | None:
    """Return the whole number that a value or its text is, if it is one.

    >>> int_or_none("2"), int_or_none("two"), int_or_none(True)
    (2, None, None)
    """
    text = "" if isinstance(value, bool) else str(value)
    return int(text) if text.isdecimal() else None


def _deepspeed(config: Config) -> Iterator[Problem]:
    options = config.trainer.deepspeed
    if not options:
        return
    for key, ours in sorted(DEEPSPEED_OURS.items()):
        if options.get(key, "auto") != "auto":
            what = f"{ours} says it already, got {options[key]!r}"
            yield Problem(f"trainer.deepspeed.{key}", what, "take it out")
    for key in sorted(_DEEPSPEED_NOT_HERE.keys() & options.keys()):
        what = f"is set by {_DEEPSPEED_NOT_HERE[key]}"
        yield Problem(f"trainer.deepspeed.{key}", what, "take it out")
    if not config.pod.gpu:
        what = "needs GPUs, and pod.gpu is empty"
        yield Problem("trainer.deepspeed", what, "name a GPU, or try it with trainer.fsdp=true")
    yield from _deepspeed_zero(config, options.get("zero_optimization"))


def _deepspeed_zero(config: Config, zero: Any) -> Iterator[Problem]:
    key = "trainer.deepspeed.zero_optimization"
    if not isinstance(zero, dict) or int_or_none(zero.get("stage")) not in {1, 2, 3}:
        yield Problem(f"{key}.stage", "must be 1, 2 or 3", f"set {key}.stage=2")
        return
    if int_or_none(zero["stage"]) != 3:  # noqa: PLR2004 - the stage that parts the weights
        return
    if zero.get("stage3_gather_16bit_weights_on_model_save") is not True:
        what = "must be true: a checkpoint would hold no weights that could be delivered"
        name = "stage3_gather_16bit_weights_on_model_save"
        yield Problem(f"{key}.{name}", what, f"set {key}.{name}=true")
    if config.adapter.kind is AdapterKind.QLORA:
        what = "4-bit weights, as they are loaded here, cannot be parted by ZeRO 3"
        yield Problem("adapter.kind", what, f"set {key}.stage=2")
    method = config.method
    is_copied = isinstance(method, DpoMethod) and not method.precompute_ref_log_probs
    if is_copied and config.adapter.kind is AdapterKind.NONE:
        what = (
            "DPO compares with a copy of the weights, and what ZeRO 3 has parted cannot be copied"
        )
        way_out = f"set method.precompute_ref_log_probs=true, or {key}.stage=2"
        yield Problem("method.precompute_ref_log_probs", what, way_out)


GPU_RULES: tuple[Callable[[Config], Iterator[Problem]], ...] = (_sharding, _fsdp, _deepspeed)
