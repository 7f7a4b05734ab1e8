"""A model made small: two layers of its own architecture and its own tokenizer, or a stand-in.

Imports torch and transformers, inside functions: only in a fork that trains, or about to.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from podproof.harness.shrink import Shrunken, with_stand_in, without_targets
from podproof.harness.small_config import STAND_IN, family_of, is_narrow, shrunken_config
from podproof.runtime.models import model_location
from podproof.runtime.plan import ModelInit, ModelPlan, Plan

# Of a small model: 400 MB, and as much again for each of Adam's moments.
_MOST_WEIGHTS = 100_000_000


class EntangledSizesError(Exception):
    """A config's sizes hang together, and a small model cannot be made of it."""


def with_small_model(plan: Plan, models: Path) -> Shrunken:
    """Return the plan with two small layers of its model's architecture.

    A pretrained model becomes a folder in `models`, made once for all plans that name it: a small
    model with random weights, and its own tokenizer. Where its config is not at hand another model
    stands in, and a note says so.
    """
    if plan.model.init is ModelInit.RANDOM:
        try:
            return _drawn_small(plan)
        except EntangledSizesError as error:
            return _stand_in(plan, error)
    try:
        return _pretrained_small(plan, models)
    except Exception as error:  # whatever keeps a model from being at hand, another stands in
        return _stand_in(plan, error)


def _drawn_small(plan: Plan) -> Shrunken:
    config = _small_config(_full_config(plan.model.config))
    vocabulary = min(plan.model.tokenizer_vocab_size or 512, 512)
    model = replace(plan.model, config=config, tokenizer_vocab_size=vocabulary)
    return Shrunken(replace(plan, model=model), (f"a {config['model_type']} of 2 layers",))


def _pretrained_small(plan: Plan, models: Path) -> Shrunken:
    key = hashlib.sha256(json.dumps(asdict(plan.model), sort_keys=True).encode()).hexdigest()
    place = models / key[:16]
    if not place.is_dir():
        _make_small_model(plan.model, place)
    kind = json.loads((place / "config.json").read_text(encoding="utf-8"))["model_type"]
    model = replace(plan.model, name_or_path=str(place), revision=None, gguf_file=None)
    note = f"a {kind} of 2 layers with the tokenizer of {plan.model.name_or_path}"
    return Shrunken(replace(plan, model=model), (note,))


def _stand_in(plan: Plan, error: Exception) -> Shrunken:
    name = plan.model.name_or_path
    family = family_of(name)
    if family is not None:
        config = shrunken_config(_full_config({"model_type": family}))
        note = f"{name} is not at hand: a {family} of 2 layers with a tokenizer of its own"
        return Shrunken(with_stand_in(plan, config), (note,))
    config = shrunken_config(_full_config(STAND_IN))
    why = str(error).strip().partition("\n")[0][:120]
    what = f"{name} is not at hand" if name else "the model is not made small"
    note = f"{what} ({why}): a llama stands in, adapter.target_modules untried"
    return Shrunken(without_targets(with_stand_in(plan, config)), (note,))


def _small_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with small layers.

    Raise EntangledSizesError when a model of it can be built, and not a small one: that is no fault
    of the config's. One that is broken by itself is returned, for the gate to refuse.
    """
    small = shrunken_config(config)
    if is_narrow(config):
        return small
    try:
        _compute_once(small)
    except Exception as error:
        if is_built(config):
            what = f"a {config['model_type']} cannot be made small: {type(error).__name__}: {error}"
            raise EntangledSizesError(what) from error
    return small


def _compute_once(config: Mapping[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        drawn = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    weights = sum(weight.numel() for weight in drawn.parameters())
    if weights > _MOST_WEIGHTS:
        raise ValueError(f"{weights:,} weights in 2 layers")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    with torch.no_grad():
        model(input_ids=torch.ones((1, 8), dtype=torch.long))


def is_built(config: Mapping[str, Any]) -> bool:
    """Tell whether a model of a config can be built, without memory for its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    except Exception:  # whatever the library says of it, the gate says when it builds the small one
        return False
    return True


def _full_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with all of its model type's own defaults, as `AutoConfig.for_model` does.

    Left out are defaults that no plan could carry, such as an infinity: they are filled in again.
    """
    from transformers import AutoConfig

    full = AutoConfig.for_model(**given).to_dict()
    return {**_carried(full), "model_type": given["model_type"]}


def _carried(config: Mapping[str, Any]) -> dict[str, Any]:
    parts = {
        key: _carried(value) if isinstance(value, dict) else value for key, value in config.items()
    }
    return {key: value for key, value in parts.items() if value == _as_json(value)}


def _as_json(value: Any) -> Any:
    """Return a value as it comes out of JSON; None where JSON cannot carry it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return None


def _make_small_model(plan: ModelPlan, place: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    location = model_location(plan)
    source = {"revision": plan.revision, "gguf_file": plan.gguf_file}
    options = {name: value for name, value in source.items() if value is not None}
    config = AutoConfig.from_pretrained(location, **options).to_dict()
    tokenizer = AutoTokenizer.from_pretrained(location, **options)
    small = AutoConfig.for_model(**_small_config(config))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(small, dtype=torch.float32)
    draft = place.with_name(f"{place.name}.{os.getpid()}")
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    try:
        os.replace(draft, place)
    except OSError:
        # Another job was faster.
        shutil.rmtree(draft)
