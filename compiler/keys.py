"""Which keys a config may have, by the schema's types, and the nearest one to a slip."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_origin, get_type_hints

from podproof.compiler.schema import METHODS, SECTIONS
from podproof.runtime.errors import Problem

# What other tools and earlier releases of the pinned libraries call the same field; a name that
# means something else elsewhere stands with its section.
FORMER_NAMES: Mapping[str, str] = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "gradient_accumulation": "gradient_accumulation_steps",
    "grad_accum": "gradient_accumulation_steps",
    "warmup_ratio": "warmup_steps",
    "lr_scheduler": "lr_scheduler_type",
    "optimizer": "optim",
    "evaluation_strategy": "eval_strategy",
    "gradient_checkpointing": "activation_checkpointing",
    "max_seq_length": "max_length",
    "torch_dtype": "dtype",
    "model.name": "name_or_path",
    "model.path": "name_or_path",
    "model.id": "name_or_path",
    "model.model_name_or_path": "name_or_path",
    "model.pretrained_model_name_or_path": "name_or_path",
    "model_name_or_path": "name_or_path",
    "base_model": "name_or_path",
}

_SECTION_NAMES = (*SECTIONS, "method", "experiment")


def unknown_key(key: str, method: str) -> Problem | None:
    """Return a problem with the way out when the schema of this method has no such key."""
    if schema_at(key, method) is not None:
        return None
    return Problem(key, "no such key", did_you_mean(key, method))


def did_you_mean(key: str, method: str) -> str:
    """Return the way out for an unknown key: the nearest known one, its own place first."""
    known = tuple(_known_keys(method))
    section, _, last = key.rpartition(".")
    beside = [name for name in known if name.rpartition(".")[0] == section]
    last = FORMER_NAMES.get(key) or FORMER_NAMES.get(last, last)
    elsewhere = [name for name in (*beside, *known) if name.rpartition(".")[2] == last]
    others = [name for name in METHODS if name != method and key in _known_keys(name)]
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    if others:
        return f"method {method} has no such field; it belongs to {' and '.join(others)}"
    sections = () if section else _SECTION_NAMES
    near = _nearest_by_last_word(last, beside, 0.6) or _nearest(key, (*known, *sections))
    return f"did you mean {near}?" if near else "docs/reference/config.md lists every key"


def _nearest_by_last_word(word: str, keys: Sequence[str], cutoff: float) -> str | None:
    by_word = {key.rpartition(".")[2]: key for key in reversed(keys)}
    near = difflib.get_close_matches(word, list(by_word), n=1, cutoff=cutoff)
    return by_word[near[0]] if near else None


def _nearest(key: str, known: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(key, known, n=1, cutoff=0.75)), None)


def _known_keys(method: str) -> Iterator[str]:
    yield from ("name", "seed")
    for section, kind in {**SECTIONS, "method": METHODS.get(method, METHODS["sft"])}.items():
        yield from _keys_below(section, kind)


def _keys_below(prefix: str, kind: Any) -> Iterator[str]:
    for item in fields(kind):
        hint = get_type_hints(kind)[item.name]
        key = f"{prefix}.{item.name}"
        if is_dataclass(hint):
            yield from _keys_below(key, hint)
        else:
            yield key


def schema_at(key: str, method: str) -> Any:
    """Return the type at a dotted key; Any inside a mapping that takes any key, None if unknown."""
    head, *rest = key.split(".")
    sections = {"name": str, "seed": int, **SECTIONS}
    kind: Any = sections.get(head) or (METHODS.get(method) if head == "method" else None)
    for part in rest:
        if kind is None or kind is Any:
            return kind
        if get_origin(kind) is dict:
            return Any
        kind = get_type_hints(kind).get(part) if is_dataclass(kind) else None
    return kind


def is_key(where: str) -> bool:
    """Tell whether a config of some method may have this key, or list item.

    >>> is_key("adapter.target_modules[1]"), is_key("pod_script.py:12")
    (True, False)
    """
    return any(schema_at(where.partition("[")[0], method) is not None for method in METHODS)
