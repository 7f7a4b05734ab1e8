"""The config surface: every field a person may write, with its type and default.

Names are those of TrainingArguments, TRL and PEFT wherever one exists there. The sections that
ride in the pod are the plan's own classes (runtime/plan.py); here stands what is only ours:
the trainer and method arguments before they are lowered, the pod, and the gates.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from hydra.core.config_store import ConfigStore

from podproof.compiler.ir import Cloud, Provider
from podproof.runtime.plan import (
    AdapterPlan,
    DataPlan,
    MethodName,
    ModelPlan,
    PredictionsPlan,
    PublishPlan,
    RecoveryPlan,
    ReportPlan,
    ScorerPlan,
)


class EvalStrategy(StrEnum):
    """When the trainer evaluates; it saves at the same moments, so that each score has weights."""

    STEPS = "steps"
    EPOCH = "epoch"
    NO = "no"


@dataclass(frozen=True)
class TrainerConfig:
    """TrainingArguments by their names; null means the pinned library's own default.

    `save_steps` null means `eval_steps`. `fsdp`, or a `deepspeed` config that is not empty, shards
    the model over the GPUs; without them each GPU holds a whole one. `extra` holds any other field
    of the pinned config class.
    """

    learning_rate: float = 2e-5
    num_train_epochs: float = 3.0
    max_steps: int = -1
    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    warmup_steps: float = 0.0
    lr_scheduler_type: str = "linear"
    optim: str = "adamw_torch_fused"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    bf16: bool = True
    fp16: bool = False
    tf32: bool | None = None
    activation_checkpointing: bool = True
    logging_steps: int = 10
    eval_strategy: EvalStrategy = EvalStrategy.STEPS
    eval_steps: int = 50
    save_steps: int | None = None
    save_total_limit: int | None = 2
    dataloader_num_workers: int = 0
    neftune_noise_alpha: float | None = None
    torch_compile: bool = False
    fsdp: bool = False
    fsdp_config: dict[str, Any] = field(default_factory=dict)
    deepspeed: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SftMethod:
    """SFTConfig's own fields; null means TRL's default, for `max_length` no limit."""

    name: MethodName = MethodName.SFT
    max_length: int | None = 1024
    packing: bool = False
    packing_strategy: str = "bfd"
    eval_packing: bool | None = None
    padding_free: bool = False
    completion_only_loss: bool | None = None
    assistant_only_loss: bool = False
    loss_type: str = "nll"
    dataset_num_proc: int | None = None


@dataclass(frozen=True)
class DpoMethod:
    """DPOConfig's own fields; null means TRL's default, for `max_length` no limit."""

    name: MethodName = MethodName.DPO
    beta: float = 0.1
    loss_type: tuple[str, ...] = ("sigmoid",)
    loss_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    max_length: int | None = 1024
    truncation_mode: str = "keep_start"
    disable_dropout: bool = True
    precompute_ref_log_probs: bool = False
    use_weighting: bool = False
    dataset_num_proc: int | None = None


@dataclass(frozen=True)
class OrpoMethod:
    """ORPOConfig's own fields; null means TRL's default, for `max_length` 512 tokens."""

    name: MethodName = MethodName.ORPO
    beta: float = 0.1
    max_length: int | None = 1024
    max_completion_length: int | None = None
    disable_dropout: bool = True
    dataset_num_proc: int | None = None


Method = SftMethod | DpoMethod | OrpoMethod
METHODS: Mapping[str, type[Method]] = {"sft": SftMethod, "dpo": DpoMethod, "orpo": OrpoMethod}


@dataclass(frozen=True)
class PodConfig:
    """The pod to rent; see podproof.compiler.ir.PodSpec for units.

    `requirements` adds packages to the script, or replaces a pin: {"flash-attn": "2.8.3"}.
    """

    provider: Provider = Provider.LOCAL
    image: str = "podproof/local"
    gpu: tuple[str, ...] = ()
    gpu_count: int = 1
    node_count: int = 1
    cloud: Cloud = Cloud.SECURE
    data_centers: tuple[str, ...] = ()
    cuda_versions: tuple[str, ...] = ()
    container_disk_gb: int = 20
    volume_gb: int = 0
    network_volume: str | None = None
    max_hours: float = 24.0
    max_usd: float | None = None
    env: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    requirements: dict[str, str] = field(default_factory=dict)


class GatesLevel(StrEnum):
    """How much is proven before a launch."""

    STATIC = "static"
    FAST = "fast"
    FULL = "full"


# Every gate there is, in order (harness/gates.py asks them; a test keeps the two alike).
GATE_IDS = (
    "config",
    "artefact",
    "api",
    "size",
    "data",
    "memory",
    "scorer",
    "dryrun",
    "regression",
    "trainer",
    "smoke",
)


@dataclass(frozen=True)
class GatesConfig:
    """The gates to run; `skip` maps a gate id to the reason for not running it."""

    level: GatesLevel = GatesLevel.FAST
    skip: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """A whole config, typed; made by podproof.compiler.read only."""

    name: str
    seed: int
    model: ModelPlan
    data: DataPlan
    method: Method
    adapter: AdapterPlan
    trainer: TrainerConfig
    scorer: ScorerPlan
    recovery: RecoveryPlan
    predictions: PredictionsPlan
    pod: PodConfig
    report: ReportPlan
    publish: PublishPlan
    gates: GatesConfig


SECTIONS: Mapping[str, type[Any]] = {
    "model": ModelPlan,
    "data": DataPlan,
    "adapter": AdapterPlan,
    "trainer": TrainerConfig,
    "scorer": ScorerPlan,
    "recovery": RecoveryPlan,
    "predictions": PredictionsPlan,
    "pod": PodConfig,
    "report": ReportPlan,
    "publish": PublishPlan,
    "gates": GatesConfig,
}


def register_defaults() -> None:
    """Put every default into Hydra's store, so that any known key can be overridden by name."""
    store = ConfigStore.instance()
    defaults = {key: plain(section()) for key, section in SECTIONS.items()}
    store.store(name="podproof_defaults", node={"name": "run", "seed": 42, **defaults})
    for name, method in METHODS.items():
        store.store(group="method", name=f"{name}_defaults", node=plain(method()))


def plain(value: Any) -> Any:
    """Return dataclasses, enums and tuples as the dicts, text and lists that YAML knows.

    >>> plain(GatesConfig())
    {'level': 'fast', 'skip': {}}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value
