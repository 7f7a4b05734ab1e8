"""The plan: everything the pod needs to know, as one frozen value read from one JSON literal.

The section classes below are also the config schema's (compiler/schema.py adds what only the
launcher needs), so a field has one name, one type and one default from the YAML to the pod.
"""

import dataclasses
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from podproof.runtime.errors import BadPlan, Problem


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
    """The scorers that ship with podproof."""

    ROBUST = "robust"
    SEED_V1 = "seed_v1"
    EVAL_LOSS = "eval_loss"


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
    keys are TRL's column names, its values the names in the file.
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
class ScorerPlan:
    """The scorer and its weights; `gap_*` and `train_ema_alpha` are those of `robust`."""

    name: ScorerName = ScorerName.ROBUST
    gap_weight: float = 0.02
    gap_limit: float = 0.5
    train_ema_alpha: float = 0.5
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)


@dataclass(frozen=True)
class RecoveryPlan:
    """What happens after a restart; the boot code ends the pod after `max_restarts` of them."""

    resume: Resume = Resume.AUTO
    max_restarts: int = 3


@dataclass(frozen=True)
class ReportPlan:
    """Where events go; `integrations` become TrainingArguments.report_to."""

    sink: Sink = Sink.LOCAL
    url: str | None = None
    integrations: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishPlan:
    """Where the chosen weights are put; `dir` is a folder name inside the run's output."""

    to: PublishTo = PublishTo.DIR
    dir: str = "delivered"


@dataclass(frozen=True)
class Plan:
    """Everything the pod needs to know.

    `arguments` are keyword arguments of the method's TRL config class, all but `output_dir`.
    `gpu_count` is the number of processes the arithmetic of a step counts with.
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
    report: ReportPlan
    publish: PublishPlan
    gpu_count: int
    config_sha256: str


_PlanSection = TypeVar("_PlanSection")


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


def read_section(
    section: type[_PlanSection], fields: Any, where: str, problems: list[Problem]
) -> _PlanSection:
    """Read a frozen dataclass from plain JSON values, field by field, nested ones too.

    Every problem is appended to `problems`, with its place as a dotted path; the value returned
    may be used only when none was appended. A whole number is read as a float where one is due;
    a boolean is never a number.
    """
    if not isinstance(fields, Mapping):
        problems.append(Problem(where, f"must be an object, got {type(fields).__name__}"))
        return section(**dict.fromkeys(get_type_hints(section)))
    hints = get_type_hints(section)
    values = {
        key: _read_plan_value(hint, fields[key], f"{where}.{key}", problems)
        for key, hint in hints.items()
        if key in fields
    }
    unknown = sorted(fields.keys() - hints)
    problems += [Problem(f"{where}.{key}", "unknown field") for key in unknown]
    missing = sorted(hints.keys() - fields.keys())
    problems += [Problem(f"{where}.{key}", "missing field") for key in missing]
    values.update(dict.fromkeys(missing))
    return section(**values)


def _read_plan_value(hint: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    origin = get_origin(hint)
    if origin in {Union, types.UnionType}:
        return _read_plan_union(hint, value, where, problems)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return read_section(hint, value, where, problems)
    if origin in {tuple, dict} and isinstance(value, list | Mapping):
        return _read_plan_items(hint, value, where, problems)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _read_plan_member(hint, value, where, problems)
    return _read_plan_scalar(origin or hint, value, where, problems)


def _read_plan_items(hint: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    if isinstance(value, list) and get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        return tuple(_read_plan_value(kind, item, where, problems) for item in value)
    if isinstance(value, Mapping) and get_origin(hint) is dict:
        kind = get_args(hint)[1]
        return {
            str(key): _read_plan_value(kind, item, f"{where}.{key}", problems)
            for key, item in value.items()
        }
    return _read_plan_scalar(get_origin(hint), value, where, problems)


def _read_plan_union(hint: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    for choice in get_args(hint):
        attempt: list[Problem] = []
        if choice is type(None):
            if value is None:
                return None
            continue
        read = _read_plan_value(choice, value, where, attempt)
        if not attempt:
            return read
    choices = " or ".join(_plan_hint_in_words(choice) for choice in get_args(hint))
    problems.append(Problem(where, f"must be {choices}, got {value!r}"))
    return None


def _read_plan_member(hint: type[Enum], value: Any, where: str, problems: list[Problem]) -> Any:
    try:
        return hint(value)
    except ValueError:
        choices = ", ".join(str(member.value) for member in hint)
        problems.append(Problem(where, f"must be one of {choices}, got {value!r}"))
        return None


def _read_plan_scalar(kind: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    is_flag_as_number = isinstance(value, bool) and kind is not bool
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not is_flag_as_number:
        return _read_plan_float(value, where, problems)
    if is_flag_as_number or not isinstance(value, kind):
        problems.append(Problem(where, f"must be {_PLAN_WORDS.get(kind, kind)}, got {value!r}"))
    return value


def _read_plan_float(value: int, where: str, problems: list[Problem]) -> float:
    try:
        return float(value)
    except OverflowError:
        problems.append(Problem(where, f"must be a number below 1e308, got {value!r}"))
        return 0.0


def _plan_hint_in_words(hint: Any) -> str:
    if hint is type(None):
        return "null"
    return _PLAN_WORDS.get(get_origin(hint) or hint, getattr(hint, "__name__", str(hint)))


_PLAN_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a mapping",
    tuple: "a list",
}
