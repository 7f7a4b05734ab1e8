"""What a config must satisfy beyond its types: ranges, and fields that must fit each other.

Each rule is a function from a Config to the problems it finds; all of them always run, so that
one command lists everything. A rule names the key, the value, why it matters, and the way out.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from podproof.compiler.argument_rules import ARGUMENT_RULES
from podproof.compiler.bounds import BOUNDS
from podproof.compiler.credentials import without_secrets
from podproof.compiler.data_rules import hub_only
from podproof.compiler.environment_rules import ENVIRONMENT_RULES, WIRE_WAY_OUT
from podproof.compiler.gpu_rules import GPU_RULES
from podproof.compiler.ir import Provider
from podproof.compiler.limits import CARRIED
from podproof.compiler.model_rules import MODEL_RULES
from podproof.compiler.pod_rules import POD_RULES
from podproof.compiler.prediction_rules import prediction_problems
from podproof.compiler.publish_rules import (
    outlives_the_pod,
    published_folder,
    published_on_the_hub,
)
from podproof.compiler.report_rules import REPORT_RULES
from podproof.compiler.schedule_rules import SCHEDULE_RULES
from podproof.compiler.schema import (
    GATE_IDS,
    Config,
    DpoMethod,
    EvalStrategy,
    PodConfig,
    SftMethod,
    TrainerConfig,
    plain,
)
from podproof.compiler.scorer_rules import scorer_rules
from podproof.runtime.errors import Problem
from podproof.runtime.plan import (
    AdapterKind,
    DataPlan,
    DataSource,
    ModelInit,
    Resume,
    RowFormat,
    Sink,
)
from podproof.runtime.rows import METHOD_FORMATS

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
PACKAGE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")

_MOST_STEPS = 10_000_000

# Arguments that the plan itself decides: overriding one would break the selection rule.
OWN_ARGUMENTS = frozenset(
    {
        "output_dir",
        "seed",
        "report_to",
        "save_strategy",
        "load_best_model_at_end",
        "metric_for_best_model",
        "greater_is_better",
        "resume_from_checkpoint",
        "model_init_kwargs",
    }
)


def violations(config: Config) -> tuple[Problem, ...]:
    """Return every rule the config breaks, sorted by key; empty when it breaks none."""
    found = {problem for rule in RULES for problem in rule(config)}
    # A value that is refused is shown, unless somebody put a credential there.
    shown = {replace(problem, what=without_secrets(problem.what)) for problem in found}
    return tuple(sorted(shown))


def _ranges(config: Config) -> Iterator[Problem]:
    for key, bound in BOUNDS.items():
        value = _value_at(config, key)
        if isinstance(value, int | float) and not bound.admits(value):
            yield Problem(key, f"must be {bound}, got {value!r}", f"set {key}={bound.usual}")


def _json_everywhere(config: Config) -> Iterator[Problem]:
    """Refuse what JSON cannot carry, also where any value may stand: NaN, infinities, bytes."""
    for key, value in _leaves(plain(config), ""):
        if isinstance(value, float) and not math.isfinite(value) and key not in BOUNDS:
            yield Problem(key, f"must be a finite number, got {value!r}", "write a number")
        if value is not None and not isinstance(value, bool | int | float | str):
            what = f"must be text or a number, got {type(value).__name__}"
            yield Problem(key, what, "write it as text")


def _leaves(value: object, where: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{where}[{index}]")
    else:
        yield where, value


def _names(config: Config) -> Iterator[Problem]:
    if not NAME.fullmatch(config.name):
        yield Problem(
            "name",
            f"must be up to 40 of a-z, 0-9 and dashes, got {config.name!r}",
            "it names the pod and its folder: set name=my-run",
        )


def _model(config: Config) -> Iterator[Problem]:
    model = config.model
    if model.init is ModelInit.PRETRAINED and not model.name_or_path:
        yield Problem(
            "model.name_or_path", "needs a value with init=pretrained", "set a hub id or a path"
        )
    if model.init is ModelInit.RANDOM and not model.config.get("model_type"):
        yield Problem(
            "model.config",
            "needs model_type with init=random",
            "see conf/model/llama_tiny.yaml for a whole one",
        )
    if model.init is ModelInit.RANDOM and model.tokenizer_vocab_size is None:
        way_out = "set model.tokenizer_vocab_size=2048"
        yield Problem("model.tokenizer_vocab_size", "needs a value with init=random", way_out)
    if model.dtype not in {"auto", "float32", "bfloat16", "float16"}:
        choices = "auto, float32, bfloat16, float16"
        yield Problem("model.dtype", f"must be one of {choices}, got {model.dtype!r}")
    if model.trust_remote_code and model.revision is None:
        yield Problem(
            "model.trust_remote_code",
            "would run whatever the repository holds on the day of the launch",
            "pin it: set model.revision to a commit",
        )


def _data(config: Config) -> Iterator[Problem]:
    data = config.data
    if not data.path:
        yield Problem("data.path", "needs a value", "set data.path to a file or a hub id")
    if data.format not in {RowFormat.AUTO, *METHOD_FORMATS[config.method.name]}:
        allowed = ", ".join(sorted(METHOD_FORMATS[config.method.name]))
        what = f"{config.method.name.value} trains on {allowed}, got {data.format.value}"
        yield Problem("data.format", what, "choose another data group or method")
    if data.source is DataSource.HUB:
        yield from _hub_data(data)
    if data.eval.split is not None and data.source is not DataSource.HUB:
        yield Problem("data.eval.split", "only a hub dataset has splits", "set data.eval.path")
    given = [item for item in (data.eval.path, data.eval.split, data.eval.fraction) if item]
    if config.trainer.eval_strategy is EvalStrategy.NO and not given:
        return
    if len(given) != 1:
        yield Problem(
            "data.eval",
            f"needs exactly one of path, split, fraction; {len(given)} given",
            "set data.eval.fraction=0.1, or trainer.eval_strategy=no to train without a score",
        )


def _hub_data(data: DataPlan) -> Iterator[Problem]:
    for key, path in (("path", data.path), ("eval.path", data.eval.path)):
        if path is not None and path.startswith(("/", "./", "../", "http://", "https://")):
            what = f"{path!r} is no name of a dataset on the hub"
            yield Problem(f"data.{key}", what, "write owner/name")
    if data.eval.split is not None and data.eval.split == data.split and data.eval.path is None:
        what = f"{data.split!r} is the split that is trained on"
        yield Problem("data.eval.split", what, "name another, or set data.eval.fraction=0.1")


def _trainer(config: Config) -> Iterator[Problem]:
    trainer = config.trainer
    if trainer.max_steps != -1 and not 1 <= trainer.max_steps <= _MOST_STEPS:
        what = f"must be -1 (use the epochs), or from 1 to {_MOST_STEPS:,}, got {trainer.max_steps}"
        yield Problem("trainer.max_steps", what, "set trainer.max_steps=-1")
    if trainer.bf16 and trainer.fp16:
        yield Problem("trainer.fp16", "bf16 and fp16 exclude each other", "set trainer.bf16=false")
    if _saves_apart_from_evals(trainer):
        yield Problem(
            "trainer.save_steps",
            f"must equal eval_steps ({trainer.eval_steps}), got {trainer.save_steps}: a best "
            "evaluation without a checkpoint has no weights to deliver",
            f"set trainer.save_steps={trainer.eval_steps}",
        )
    if 0 < trainer.max_steps < trainer.eval_steps and trainer.eval_strategy is EvalStrategy.STEPS:
        what = f"{trainer.eval_steps} is beyond max_steps ({trainer.max_steps})"
        yield Problem("trainer.eval_steps", what, f"set trainer.eval_steps={trainer.max_steps}")
    typed = set(plain(TrainerConfig())) | set(plain(config.method))
    for key in sorted(config.trainer.extra.keys() & (typed | OWN_ARGUMENTS)):
        section = "method" if key in plain(config.method) else "trainer"
        way_out = "the plan sets it itself" if key in OWN_ARGUMENTS else f"set {section}.{key}"
        yield Problem(f"trainer.extra.{key}", "is not free to set here", way_out)


def _saves_apart_from_evals(trainer: TrainerConfig) -> bool:
    together = trainer.save_steps in {None, trainer.eval_steps}
    return trainer.eval_strategy is EvalStrategy.STEPS and not together


def _method(config: Config) -> Iterator[Problem]:
    method = config.method
    if isinstance(method, SftMethod) and method.padding_free and not method.packing:
        yield from _padding_free(method)
    if isinstance(method, SftMethod) and method.packing and method.max_length is None:
        what = "must have a value with packing, which fills sequences of this length"
        yield Problem("method.max_length", what, "set method.max_length=1024")
    weights = method.loss_weights if isinstance(method, DpoMethod) else None
    if isinstance(method, DpoMethod) and weights is not None:
        if len(weights) == len(method.loss_type):
            return
        what = f"{len(weights)} weights for {len(method.loss_type)} losses"
        yield Problem("method.loss_weights", what, "give one weight for each loss_type")


def _padding_free(method: SftMethod) -> Iterator[Problem]:
    if method.max_length is not None:
        what = "TRL refuses padding_free with max_length unless packing is on"
        yield Problem("method.padding_free", what, "set method.max_length=null")


def _adapter(config: Config) -> Iterator[Problem]:
    adapter = config.adapter
    if adapter.kind is AdapterKind.NONE:
        return
    if not adapter.target_modules or not all(adapter.target_modules):
        yield Problem(
            "adapter.target_modules", "names no module", "set adapter.target_modules=[all-linear]"
        )
    for module in adapter.target_modules:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", module):
            yield Problem(
                "adapter.target_modules",
                f"{module!r} cannot be the name of a module, and PEFT skips it without a word",
                "check for a stray character",
            )
    if adapter.kind is AdapterKind.QLORA and not config.pod.gpu:
        what = "4-bit weights need a GPU, and pod.gpu is empty"
        yield Problem("adapter.kind", what, "set adapter.kind=lora, or name a GPU")
    if adapter.bias not in {"none", "all", "lora_only"}:
        what = f"must be none, all or lora_only, got {adapter.bias!r}"
        yield Problem("adapter.bias", what, "set adapter.bias=none")


def _recovery(config: Config) -> Iterator[Problem]:
    resume = config.recovery.resume
    if resume not in set(Resume) and "/" not in resume:
        what = f"must be auto, never or the path of a checkpoint, got {resume!r}"
        yield Problem("recovery.resume", what, "write a folder that the pod sees, with its slashes")
    elif "/" in resume and config.pod.provider is Provider.RUNPOD and not _is_on_the_volume(resume):
        what = f"a rented pod sees no {resume}: its volume is /workspace"
        yield Problem("recovery.resume", what, "write /workspace/.../checkpoint-N")


def _is_on_the_volume(path: str) -> bool:
    return path.startswith("/workspace/")


def _requirements(config: Config) -> Iterator[Problem]:
    spelled: dict[str, str] = {}
    for package, version in config.pod.requirements.items():
        key = f"pod.requirements.{package}"
        if not PACKAGE.fullmatch(package) or not _is_version(version):
            what = f"must be an exact version of a package, got {version!r}"
            yield Problem(key, what, "write {name: 1.2.3}")
            continue
        first = spelled.setdefault(canonicalize_name(package), package)
        if first != package:
            yield Problem(key, f"is the same package as {first}", "give one version of it")


def _is_version(text: str) -> bool:
    # The version grammar allows blanks around it, which would end a line of the script's header.
    try:
        return bool(Version(text)) and text == text.strip()
    except InvalidVersion:
        return False


def _pod(config: Config) -> Iterator[Problem]:
    pod = config.pod
    if pod.provider is Provider.RUNPOD and pod.image == PodConfig().image:
        what = f"{pod.image} is the local pod, which no registry has"
        yield Problem("pod.image", what, "choose a pod group, such as pod=runpod_80gb")
    if pod.provider is Provider.RUNPOD and not pod.gpu:
        yield Problem("pod.gpu", "names no GPU to rent", "set pod.gpu=[NVIDIA L40S]")
    singles = [("image", pod.image), ("network_volume", pod.network_volume)]
    lists = [(key, item) for key in _SENT_LISTS for item in getattr(pod, key)]
    for key, value in singles + lists:
        if value is not None and not (value and CARRIED.fullmatch(value)):
            yield Problem(f"pod.{key}", f"{value!r} cannot be sent to RunPod", WIRE_WAY_OUT)


_SENT_LISTS = ("gpu", "data_centers", "cuda_versions")


def _off_the_pod(config: Config) -> Iterator[Problem]:
    """Nothing may be trained whose data or events cannot reach or leave the pod."""
    if config.pod.provider is Provider.LOCAL:
        return
    if config.report.sink is Sink.LOCAL:
        what = "a rented pod cannot reach a collector on this machine"
        yield Problem("report.sink", what, "set report=none, or report=http report.url=https://...")
    if config.data.source is DataSource.HUB:
        return
    for key, path in (("path", config.data.path), ("eval.path", config.data.eval.path)):
        if path is not None and not _is_on_the_volume(path):
            yield Problem(
                f"data.{key}",
                f"{path!r} is a file on this machine, which a rented pod cannot read",
                "put it on the network volume (/workspace/...), or on the hub: data.source=hub",
            )


def _skips(config: Config) -> Iterator[Problem]:
    for gate, reason in config.gates.skip.items():
        if gate not in GATE_IDS[1:]:
            what = "is not a gate that can be skipped"
            yield Problem(f"gates.skip.{gate}", what, f"the gates are {', '.join(GATE_IDS[1:])}")
        if not str(reason or "").strip():
            what = "is skipped without a reason"
            yield Problem(f"gates.skip.{gate}", what, f"set gates.skip.{gate}='why'")


def _value_at(config: Config, key: str) -> object:
    value: object = config
    for part in key.split("."):
        value = getattr(value, part, None)
    return None if isinstance(value, bool) else value


RULES: tuple[Callable[[Config], Iterator[Problem]], ...] = (
    _ranges,
    _json_everywhere,
    _names,
    _model,
    _data,
    hub_only,
    _trainer,
    _method,
    scorer_rules,
    _adapter,
    _recovery,
    _requirements,
    _pod,
    _off_the_pod,
    prediction_problems,
    published_folder,
    published_on_the_hub,
    outlives_the_pod,
    _skips,
    *ARGUMENT_RULES,
    *MODEL_RULES,
    *GPU_RULES,
    *POD_RULES,
    *ENVIRONMENT_RULES,
    *SCHEDULE_RULES,
    *REPORT_RULES,
)
