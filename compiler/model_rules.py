"""Rules about the model: what its name can be, what its config may say, what its adapter adds."""

import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from podproof.compiler.architecture import FAMILIES
from podproof.compiler.ir import Provider
from podproof.compiler.pins import POD_PINS
from podproof.compiler.schema import Config
from podproof.runtime.errors import Problem
from podproof.runtime.plan import AdapterKind, ModelInit

_PACKAGE_PREFIX = "package:"
_PATH_STARTS = ("/", "./", "../", _PACKAGE_PREFIX)
# As huggingface_hub's validate_repo_id has it.
_HUB_ID = re.compile(r"([A-Za-z0-9_][\w.-]*/)?[A-Za-z0-9_][\w.-]*")
_LONGEST_HUB_ID = 96
_PAGE = re.compile(r"https?://[^/]+/(?P<id>[^/?#]+/[^/?#]+)(/(tree|blob)/(?P<revision>[^/?#]+))?")
# How repositories of weights that are quantized already end; none of these is bitsandbytes' own.
_QUANTIZED = re.compile(
    r"[-_.](gptq|awq|aqlm|hqq|exl2|exl3|fp8|mxfp4|nvfp4)([-_.]|$)", re.IGNORECASE
)
# LoRA adds alpha / r times its product: published recipes stay below 8.
_LARGEST_SCALE = 64
# Whose configs refuse other numbers, `head_dim` or not: validate_architecture of transformers 5.23.
_PART_HIDDEN = frozenset({"llama", "gemma2", "gemma3_text"})
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_OPTIONAL_SIZES = ("num_key_value_heads", "head_dim", "max_position_embeddings", "vocab_size")


def model_name(config: Config) -> Iterator[Problem]:
    """Refuse a name that is neither an id of the hub, nor a path, nor `package:NAME`."""
    model, key = config.model, "model.name_or_path"
    name = model.name_or_path
    if model.init is ModelInit.RANDOM or not name or name.startswith(_PATH_STARTS):
        return
    page = _PAGE.match(name)
    if page is not None:
        revision = f" model.revision={page['revision']}" if page["revision"] else ""
        what = f"{name!r} is a page, and transformers takes the id of a repository"
        yield Problem(key, what, f"set {key}={page['id']}{revision}")
    elif name.startswith("~"):
        what = f"{name!r} is taken as it stands: nothing puts a home folder in its place"
        yield Problem(key, what, "write the whole path")
    elif not _is_hub_id(name) and not Path(name).exists():
        what = f"{name!r} cannot be the id of a repository: letters, digits, - _ . and one slash"
        yield Problem(key, what, "copy the id from the model's page, or begin a path with ./ or /")


def _is_hub_id(name: str) -> bool:
    is_spelled = _HUB_ID.fullmatch(name) and "--" not in name and ".." not in name
    return bool(is_spelled) and name[-1] not in "-." and len(name) <= _LONGEST_HUB_ID


def model_package(config: Config) -> Iterator[Problem]:
    """Refuse a model inside a package that the script does not ask for: the pod has only its pins.

    A local pod has whatever is installed here. A package may bring a module by another name, which
    only an installed one tells; with any requirement given it may be that.
    """
    name, wanted = config.model.name_or_path, config.pod.requirements
    if config.model.init is ModelInit.RANDOM or not name.startswith(_PACKAGE_PREFIX):
        return
    package = name.removeprefix(_PACKAGE_PREFIX)
    asked = {canonicalize_name(item) for item in (*wanted, *POD_PINS)}
    if canonicalize_name(package) in asked:
        return
    brought_by = packages_distributions().get(package, ())
    if brought_by and config.pod.provider is Provider.LOCAL:
        return
    if (wanted and not brought_by) or asked & {canonicalize_name(item) for item in brought_by}:
        return
    bringing = brought_by[0] if brought_by else package.replace("_", "-")
    what = f"the package {package!r} is not among what the script installs"
    yield Problem("model.name_or_path", what, f"set +pod.requirements.{bringing}=VERSION")


def quantized_name(config: Config) -> Iterator[Problem]:
    """Refuse to quantize a repository whose name says that its weights are quantized."""
    found = _QUANTIZED.search(config.model.name_or_path)
    if found is not None and config.adapter.kind is AdapterKind.QLORA:
        what = f"{found[1]} weights are quantized already, and bitsandbytes cannot do it again"
        yield Problem("model.name_or_path", what, "name the model that it was made from")


def attention_packages(config: Config) -> Iterator[Problem]:
    """Refuse attention from a package that a rented pod would not have."""
    attention, wanted = config.model.attn_implementation or "", config.pod.requirements
    if config.pod.provider is not Provider.RUNPOD:
        return
    names = [canonicalize_name(name) for name in wanted]
    has_kernels = "kernels" in names
    has_flash = any(name.startswith("flash-attn") for name in names)
    if "/" in attention and not has_kernels:
        what = f"{attention} is a kernel of the hub, which the package kernels loads"
        way_out = "set +pod.requirements.kernels=VERSION, or model.attn_implementation=sdpa"
        yield Problem("model.attn_implementation", what, way_out)
    elif attention.startswith("flash_attention_") and not (has_flash or has_kernels):
        what = f"{attention} needs the package flash-attn, which the script does not install"
        way_out = "set +pod.requirements.flash-attn=2.8.3, or model.attn_implementation=sdpa"
        yield Problem("model.attn_implementation", what, way_out)


def built_config(config: Config) -> Iterator[Problem]:
    """Refuse a `model.config` that no model can be built from, or not the one that is meant."""
    if config.model.init is not ModelInit.RANDOM:
        return
    wrong = tuple(_wrong_sizes(config.model.config))
    yield from wrong
    yield from _vocabulary(config)
    if not wrong and config.model.config.get("model_type") in FAMILIES:
        yield from _heads(config.model.config)


def _wrong_sizes(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Tell only what is surely no number of things: some types have a list, one for each layer."""
    for key in (*_SIZES, *_OPTIONAL_SIZES):
        value = values.get(key)
        if isinstance(value, str | bool | float):
            what = f"must be a whole number, got {value!r}"
        elif isinstance(value, int) and value < 1 and _needs_some(key, values):
            what = f"must be at least 1, got {value}"
        else:
            continue
        yield Problem(f"model.config.{key}", what, "see conf/model/llama_tiny.yaml for a whole one")


def _needs_some(key: str, values: Mapping[str, Any]) -> bool:
    return key in {"hidden_size", "num_hidden_layers"} or values.get("model_type") in FAMILIES


def _vocabulary(config: Config) -> Iterator[Problem]:
    given, trained = config.model.config.get("vocab_size"), config.model.tokenizer_vocab_size
    if isinstance(given, int) and 0 < given < (trained or 0):
        what = (
            f"{given} is less than the tokenizer's {trained} entries, which the model takes instead"
        )
        way_out = f"take it out, and set model.tokenizer_vocab_size={max(given, 300)}"
        yield Problem("model.config.vocab_size", what, way_out)


def _heads(values: Mapping[str, Any]) -> Iterator[Problem]:
    hidden, heads = values.get("hidden_size"), values.get("num_attention_heads")
    if not isinstance(hidden, int) or not isinstance(heads, int):
        return
    if hidden % heads and values["model_type"] in _PART_HIDDEN:
        what = f"hidden_size {hidden} cannot be parted among {heads} heads"
        way_out = f"choose a number that {hidden} is a multiple of"
        yield Problem("model.config.num_attention_heads", what, way_out)
    shared = values.get("num_key_value_heads")
    if isinstance(shared, int) and heads % shared:
        what = f"{heads} heads cannot be parted among {shared} that they share keys and values with"
        way_out = f"choose a number that {heads} is a multiple of"
        yield Problem("model.config.num_key_value_heads", what, way_out)


def adapter_scale(config: Config) -> Iterator[Problem]:
    """Refuse an adapter whose scale would drown the model, and `all-linear` among other names."""
    adapter = config.adapter
    if adapter.kind is AdapterKind.NONE:
        return
    if adapter.r >= 1 and adapter.lora_alpha / adapter.r > _LARGEST_SCALE:
        scale = adapter.lora_alpha / adapter.r
        what = (
            f"what the adapter adds is scaled by lora_alpha / r = {scale:,.10g}: training diverges"
        )
        yield Problem("adapter.lora_alpha", what, f"set adapter.lora_alpha={2 * adapter.r}")
    if adapter.target_modules != ("all-linear",):
        for name in adapter.target_modules:
            if name.lower() == "all-linear":
                what = f"{name} is a word of PEFT's only when it stands alone: here it is a module"
                way_out = "set adapter.target_modules=[all-linear], or leave it out"
                yield Problem("adapter.target_modules", what, way_out)


MODEL_RULES: tuple[Callable[[Config], Iterator[Problem]], ...] = (
    model_name,
    model_package,
    quantized_name,
    attention_packages,
    built_config,
    adapter_scale,
)
