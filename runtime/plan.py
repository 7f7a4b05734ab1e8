"""The plan: everything the pod needs to know, as one frozen value kept in one JSON literal.

The section classes below are also the config schema's (compiler/schema.py adds what only the
launcher needs), so a field has one name, one type and one default from the YAML to the pod.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from podproof.runtime.errors import BadPlan, Problem
from podproof.runtime.reader import read_section


class MethodName(StrEnum):
    """The fine-tuning methods, by the names TRL gives their trainers."""

    SFT = "sft"
    DPO = "dpo"
    ORPO = "orpo"


class ModelInit(StrEnum):
    """Where the first weights come from."""

    PRETRAINED = "pretrained"
    RANDOM = "random"


class DataSource(StrEnum):
    """Where the rows come from; all but `hub` are files beside the run."""

    HUB = "hub"
    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


class RowFormat(StrEnum):
    """What one row looks like, in TRL's terms."""

    AUTO = "auto"
    MESSAGES = "messages"
    TEXT = "text"
    PROMPT_COMPLETION = "prompt_completion"
    PREFERENCE = "preference"


class AdapterKind(StrEnum):
    """What is trained: low-rank adapters, the same on a 4-bit base, or every weight."""

    LORA = "lora"
    QLORA = "qlora"
    NONE = "none"


class ScorerName(StrEnum):
    """The scorers that ship with podproof, and `own`: the formula of a file of the user's."""

    ROBUST = "robust"
    SEED_V1 = "seed_v1"
    EVAL_LOSS = "eval_loss"
    OWN = "own"


class Objective(StrEnum):
    """What the chosen checkpoint shall be best at."""

    LOSS = "loss"
    REWARD = "reward"
    ACCURACY = "accuracy"


class Validator(StrEnum):
    """What is measured of an answer to a sample prompt."""

    EXACT_MATCH = "exact_match"
    CHARACTER_ERROR_RATE = "character_error_rate"
    JSON = "json"
    JSON_SCHEMA = "json_schema"


class Resume(StrEnum):
    """What a restarted run does with checkpoints it finds."""

    AUTO = "auto"
    NEVER = "never"


class Sink(StrEnum):
    """Where events go besides the run's own file."""

    LOCAL = "local"
    HTTP = "http"
    NONE = "none"


class PublishTo(StrEnum):
    """Where the chosen weights are put."""

    DIR = "dir"
    HUB = "hub"
    NONE = "none"


@dataclass(frozen=True)
class ModelPlan:
    """The base model.

    `name_or_path` is a hub id, a path, or `package:NAME` for weights carried by an installed
    Python package; `gguf_file` names the file inside it. With `init=random` a model is built from
    `config` (keyword arguments of `AutoConfig.for_model`) and a byte-level BPE tokenizer of
    `tokenizer_vocab_size` entries is trained on the training rows; nothing is downloaded.
    `chat_template` is Jinja text; absent, the tokenizer's own is used.
    """

    name_or_path: str = ""
    revision: str | None = None
    gguf_file: str | None = None
    dtype: str = "bfloat16"
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    chat_template: str | None = None
    init: ModelInit = ModelInit.PRETRAINED
    config: dict[str, Any] = field(default_factory=dict)
    tokenizer_vocab_size: int | None = None


@dataclass(frozen=True)
class EvalPlan:
    """Where the evaluation rows come from: a file, a split, or a share of the training rows."""

    path: str | None = None
    split: str | None = None
    fraction: float | None = None


@dataclass(frozen=True)
class DataPlan:
    """The training rows.

    `path` is a hub id for `source=hub`, else a file; a relative path is looked up in the run's
    data folder, then in the working directory, then beside the script. `columns` renames: its
    keys are TRL's column names, its values the names in the file. Rows that cannot be trained on
    are dropped as long as they are no more than `max_bad_fraction` of their source; beyond it the
    run is refused. The data gate refuses more than `max_duplicate_fraction` training rows that
    repeat an earlier one, and more than `max_leaked_fraction` evaluation rows that are training
    rows too.
    """

    source: DataSource = DataSource.JSONL
    path: str = ""
    name: str | None = None
    revision: str | None = None
    split: str = "train"
    format: RowFormat = RowFormat.AUTO
    columns: dict[str, str] = field(default_factory=dict)
    eval: EvalPlan = field(default_factory=EvalPlan)
    max_rows: int | None = None
    max_eval_rows: int | None = None
    shuffle_seed: int | None = None
    max_bad_fraction: float = 0.0
    max_duplicate_fraction: float = 0.5
    max_leaked_fraction: float = 0.1


@dataclass(frozen=True)
class AdapterPlan:
    """PEFT's LoraConfig fields by their names; ignored with `kind=none`."""

    kind: AdapterKind = AdapterKind.LORA
    r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    target_modules: tuple[str, ...] = ("all-linear",)
    bias: str = "none"
    modules_to_save: tuple[str, ...] = ()


@dataclass(frozen=True)
class EarlyStopping:
    """Stop after `patience` evaluations in a row without a score better by `min_delta`."""

    patience: int | None = None
    min_delta: float = 0.0


@dataclass(frozen=True)
class TrendPlan:
    """Where the train loss is going, over the last `window` logged losses.

    A run stops after `stop_on_divergence` logs in a row that are diverging, and after
    `stop_on_plateau` logs in a row that are flat; null never stops it.
    """

    window: int = 20
    stop_on_divergence: int | None = None
    stop_on_plateau: int | None = None


@dataclass(frozen=True)
class ScorerPlan:
    """The scorer and its weights; `gap_*` and `train_ema_alpha` are those of `robust`.

    `name=own` takes the formula from the Python file `file`, looked up from where podproof runs.
    `objective=reward` (DPO) ends with the checkpoint of the highest reward margin among those
    whose eval loss is within `reward_tolerance` of the best; `objective=accuracy` subtracts
    `accuracy_weight` times accuracy, in units of the first eval loss. `redrawn_eval` is for eval
    rows that change from one evaluation to the next: eval loss is smoothed by `eval_ema_alpha`.
    """

    name: ScorerName = ScorerName.ROBUST
    file: str | None = None
    gap_weight: float = 0.02
    gap_limit: float = 0.5
    train_ema_alpha: float = 0.5
    objective: Objective = Objective.LOSS
    reward_tolerance: float = 0.05
    accuracy_weight: float = 0.2
    redrawn_eval: bool = False
    eval_ema_alpha: float = 0.5
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    trend: TrendPlan = field(default_factory=TrendPlan)


@dataclass(frozen=True)
class OomPlan:
    """Out of memory: halve the batch and double the accumulation, this often at most."""

    max_halvings: int = 3


@dataclass(frozen=True)
class NonfinitePlan:
    """Loss or gradients that are not finite: skip the step, and stop after so many in a row."""

    skip_step: bool = True
    max_consecutive: int = 10


@dataclass(frozen=True)
class RecoveryPlan:
    """What a run survives; the boot code ends the pod after `max_restarts` restarts.

    `resume` is auto (from the newest checkpoint that verifies), never, or the path of a checkpoint
    to begin with, say of another run: a folder, with a slash in its path, that the pod can see.
    """

    resume: Resume | str = Resume.AUTO
    max_restarts: int = 3
    oom: OomPlan = field(default_factory=OomPlan)
    nonfinite: NonfinitePlan = field(default_factory=NonfinitePlan)


@dataclass(frozen=True)
class PredictionsPlan:
    """What the model answers to a few fixed eval prompts, at every `every`-th evaluation.

    Answers are greedy, `max_new_tokens` long at most, and given up after `max_seconds` an
    evaluation. `validators` name what is measured of each; json_schema needs `json_schema`, the
    schema itself.
    """

    enabled: bool = False
    samples: int = 4
    every: int = 1
    max_new_tokens: int = 64
    max_seconds: float = 30.0
    validators: tuple[Validator, ...] = (Validator.EXACT_MATCH, Validator.CHARACTER_ERROR_RATE)
    json_schema: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportPlan:
    """Where events go; `integrations` become TrainingArguments.report_to."""

    sink: Sink = Sink.LOCAL
    url: str | None = None
    integrations: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishPlan:
    """Where the chosen weights are put; `dir` is a folder name inside the run's output.

    `to=hub` puts them there too, and then into the hub repository `repo_id`, made if it is not
    there; the pod needs HF_TOKEN.
    """

    to: PublishTo = PublishTo.DIR
    dir: str = "delivered"
    repo_id: str | None = None
    private: bool = True


@dataclass(frozen=True)
class Plan:
    """Everything the pod needs to know.

    `arguments` are keyword arguments of the method's TRL config class, all but `output_dir`.
    `gpu_count` is the number of processes on one pod, `node_count` the number of pods.
    """

    name: str
    seed: int
    method: MethodName
    model: ModelPlan
    data: DataPlan
    adapter: AdapterPlan
    arguments: dict[str, Any]
    scorer: ScorerPlan
    recovery: RecoveryPlan
    predictions: PredictionsPlan
    report: ReportPlan
    publish: PublishPlan
    gpu_count: int
    node_count: int
    config_sha256: str


def plan_to_json(plan: Plan) -> str:
    """Return the plan as strict, readable, ASCII JSON with sorted keys."""
    return json.dumps(
        dataclasses.asdict(plan), indent=2, sort_keys=True, ensure_ascii=True, allow_nan=False
    )


def plan_from_json(text: str) -> Plan:
    """Read a plan; raise BadPlan with every field that is missing, unknown or of a wrong type."""
    try:
        fields = json.loads(text, parse_constant=_refuse_plan_constant)
    except (ValueError, RecursionError) as error:
        raise BadPlan(Problem("plan", f"not JSON: {error}", "compile the script again")) from error
    problems: list[Problem] = []
    plan = read_section(Plan, fields, "plan", problems)
    if problems:
        raise BadPlan(*problems)
    return plan


def _refuse_plan_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
