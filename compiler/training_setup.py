"""What of a run decides its memory and its arithmetic, read once from the trainer's arguments."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from podproof.runtime.plan import AdapterKind, AdapterPlan, MethodName, Plan
from podproof.runtime.recovery import planned_sizes, smaller_sizes

# ORPO cuts at this length where max_length is null; the others do not cut, and are looked at here
# with rows of the second.
_ORPO_LENGTH = 512
UNLIMITED_LENGTH = 2048
_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
_ZERO_PARTS_GRADIENTS = 2
_ZERO_PARTS_WEIGHTS = 3


class Sharding(StrEnum):
    """Who parts the model over the GPUs; `none` leaves each of them a whole one."""

    NONE = "none"
    FSDP = "fsdp"
    ZERO = "zero"


@dataclass(frozen=True)
class TrainingSetup:
    """One process of a run as its GPU sees it; widths in bytes.

    `weight_bytes` is the width of a weight as it is loaded, `compute_bytes` that of what is
    computed with it. `length` is the longest sequence in tokens. A row of a preference method is
    two sequences. `zero_stage` is 0 without DeepSpeed. `is_compared` says that every step of DPO
    asks the reference too.
    """

    method: MethodName
    adapter: AdapterPlan
    weight_bytes: int
    compute_bytes: int
    batch: int
    eval_batch: int
    accumulation: int
    length: int
    is_packed: bool
    has_checkpointing: bool
    attention: str
    optim: str
    sharding: Sharding
    zero_stage: int
    is_offloaded: bool
    ranks: int
    evaluates: bool
    is_compared: bool

    @property
    def sequences_per_row(self) -> int:
        """Return 2 for pairs, which go through the model together, else 1."""
        return 1 if self.method is MethodName.SFT else 2

    @property
    def trains_all(self) -> bool:
        """Tell whether every weight is trained."""
        return self.adapter.kind is AdapterKind.NONE

    @property
    def has_reference(self) -> bool:
        """Tell whether a frozen copy is held to compare with; adapters are lifted off instead."""
        return self.is_compared and self.trains_all

    @property
    def is_quantized(self) -> bool:
        """Tell whether the base model is held in 4 bits."""
        return self.adapter.kind is AdapterKind.QLORA

    @property
    def parts_weights(self) -> bool:
        """Tell whether each GPU holds a share of the weights only."""
        return self.sharding is Sharding.FSDP or self.zero_stage >= _ZERO_PARTS_WEIGHTS

    @property
    def parts_gradients(self) -> bool:
        """Tell whether each GPU holds a share of the gradients only."""
        return self.sharding is Sharding.FSDP or self.zero_stage >= _ZERO_PARTS_GRADIENTS

    @property
    def parts_optimizer(self) -> bool:
        """Tell whether each GPU holds a share of the optimizer's states only."""
        return self.sharding is not Sharding.NONE


def setup_of(plan: Plan) -> TrainingSetup:
    """Return what decides the memory and arithmetic of a plan that passed the config's rules."""
    arguments = plan.arguments
    sizes = planned_sizes(plan)
    sharding, stage = _sharding(arguments)
    is_mixed = bool(arguments.get("bf16") or arguments.get("fp16"))
    weight_bytes = _WIDTHS.get(plan.model.dtype, 2)
    return TrainingSetup(
        method=plan.method,
        adapter=plan.adapter,
        weight_bytes=weight_bytes,
        compute_bytes=2 if is_mixed else weight_bytes,
        batch=sizes.train,
        eval_batch=sizes.evaluation,
        accumulation=sizes.accumulation,
        length=_length(plan),
        is_packed=bool(arguments.get("packing")),
        has_checkpointing=_has_checkpointing(arguments),
        attention=plan.model.attn_implementation or "sdpa",
        optim=str(arguments.get("optim", "adamw_torch_fused")),
        sharding=sharding,
        zero_stage=stage,
        is_offloaded=_is_offloaded(arguments),
        ranks=max(1, plan.gpu_count) * plan.node_count,
        evaluates=arguments.get("eval_strategy", "no") != "no",
        is_compared=_is_compared(plan),
    )


def smallest(plan: Plan) -> TrainingSetup:
    """Return the setup of the smallest batches that recovery.oom may come down to."""
    setup, sizes = setup_of(plan), planned_sizes(plan)
    for in_evaluation in (False, True):
        for _ in range(plan.recovery.oom.max_halvings):
            sizes = smaller_sizes(sizes, in_evaluation=in_evaluation) or sizes
    return replace(
        setup, batch=sizes.train, accumulation=sizes.accumulation, eval_batch=sizes.evaluation
    )


def _length(plan: Plan) -> int:
    length = plan.arguments.get("max_length")
    unlimited = _ORPO_LENGTH if plan.method is MethodName.ORPO else UNLIMITED_LENGTH
    return int(length) if length else unlimited


def _sharding(arguments: Mapping[str, Any]) -> tuple[Sharding, int]:
    if arguments.get("fsdp"):
        return Sharding.FSDP, 0
    zero = (arguments.get("deepspeed") or {}).get("zero_optimization")
    if not isinstance(zero, Mapping):
        return Sharding.NONE, 0
    return Sharding.ZERO, int(zero.get("stage", 0))


def _has_checkpointing(arguments: Mapping[str, Any]) -> bool:
    own = arguments.get("gradient_checkpointing", arguments.get("activation_checkpointing", True))
    return bool(own or (arguments.get("fsdp_config") or {}).get("activation_checkpointing"))


def _is_offloaded(arguments: Mapping[str, Any]) -> bool:
    options = arguments.get("fsdp_config") or {}
    zero = (arguments.get("deepspeed") or {}).get("zero_optimization") or {}
    zero_offloads = [zero.get(key) for key in ("offload_optimizer", "offload_param")]
    fsdp_offloads = [options.get(key) for key in ("offload_params", "fsdp_offload_params")]
    return any(zero_offloads) or any(fsdp_offloads)


def _is_compared(plan: Plan) -> bool:
    is_precomputed = bool(plan.arguments.get("precompute_ref_log_probs"))
    return plan.method is MethodName.DPO and not is_precomputed
