"""Where a model's config is found without a network: a run, a folder, a cache, a table."""

import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from podproof.compiler.architecture import Architecture, NotEstimated, architecture_of
from podproof.runtime.plan import ModelInit, ModelPlan

_PACKAGE_PREFIX = "package:"
# The tokenizer of a model made from nothing has every byte and three tokens of its own at least.
_SMALLEST_VOCABULARY = 259


def architecture_at_hand(plan: ModelPlan) -> Architecture | NotEstimated:
    """Return the shape of a plan's model; NotEstimated when no config of it is on this machine."""
    config = config_at_hand(plan)
    if config is None:
        return NotEstimated(f"no config of {plan.name_or_path} is at hand")
    return architecture_of(config)


def config_at_hand(plan: ModelPlan) -> Mapping[str, Any] | None:
    """Return the config of a plan's model, as its config.json has it; None when none is here.

    Looked at in this order: `model.config`; the folder that `name_or_path` names; the folder of
    `package:NAME`; the hub's cache, as HF_HUB_CACHE and HF_HOME place it; the table of well-known
    models. No request is made.
    """
    if plan.init is ModelInit.RANDOM:
        vocabulary = max(plan.tokenizer_vocab_size or 0, _SMALLEST_VOCABULARY)
        return {**plan.config, "vocab_size": vocabulary}
    for folder in _folders(plan):
        config = _config_in(folder)
        if config is not None:
            return config
    return known_configs().get(plan.name_or_path)


@cache
def known_configs() -> Mapping[str, Mapping[str, Any]]:
    """Return the configs of the table of well-known models, by hub id."""
    return {name: entry["config"] for entry in known_models() for name in entry["ids"]}


def known_models() -> tuple[Mapping[str, Any], ...]:
    """Return the table's entries: the ids, the config, and how many parameters are published."""
    path = resources.files("podproof.compiler") / "tables" / "models.json"
    return tuple(json.loads(path.read_text(encoding="utf-8"))["models"])


def _folders(plan: ModelPlan) -> Iterator[Path]:
    name = plan.name_or_path
    if name.startswith(_PACKAGE_PREFIX):
        yield from _package_folder(name.removeprefix(_PACKAGE_PREFIX))
    elif name.startswith(("/", "./", "../")):
        yield Path(name)
    else:
        yield from _cached_snapshots(name, plan.revision or "main")


def _package_folder(package: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(folder)


def _cached_snapshots(name: str, revision: str) -> Iterator[Path]:
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    root = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    repository = root / f"models--{name.replace('/', '--')}"
    reference = repository / "refs" / revision
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    yield repository / "snapshots" / commit


def _config_in(folder: Path) -> Mapping[str, Any] | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # No config, or one that a pod will complain of; here it only means that none is at hand.
        return None
    return config if isinstance(config, dict) else None
