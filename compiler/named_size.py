"""A bound on the size of a model nobody has the config of, from what its name says: `405B`."""

import re

from podproof.compiler.memory import optimizer_bytes, trained_width
from podproof.compiler.training_setup import TrainingSetup

# `8x7B` counts experts that share the rest, and `A3B` what works for one token: neither is a size.
_SIZE = re.compile(
    r"(?<![\w.])(?P<count>\d+(\.\d+)?)(?P<unit>[bm])(?=$|[-_.])(?!.?tok)", re.IGNORECASE
)
_UNITS = {"b": 1e9, "m": 1e6}
# Names round up: a `7B` may have 6.65, a `3B` 2.6.
_SURE_SHARE = 0.85
# Weights of four bits; those of a repository that is quantized already may have two.
_FOUR_BITS, _TWO_BITS = 0.5, 0.25
_PACKED = re.compile(
    r"gptq|awq|aqlm|hqq|exl\d|int\d|fp\d|\d-?bit|bnb|quant|w\da\d|gpt-oss", re.IGNORECASE
)


def parameters_named(name: str) -> int | None:
    """Return how many parameters a model has at least, by its name; None when it says nothing.

    Of several numbers the smallest counts: one of them may be of the tokens it was trained on.

    >>> parameters_named("meta-llama/Llama-3.1-405B-Instruct")
    344250000000
    >>> parameters_named("Qwen/Qwen3-30B-A3B"), parameters_named("mistralai/Mixtral-8x7B-v0.1")
    (25500000000, None)
    """
    if name.startswith(("package:", "/", "./", "../")):
        return None
    said = [
        float(found["count"]) * _UNITS[found["unit"].lower()]
        for found in _SIZE.finditer(name.rpartition("/")[2])
    ]
    return round(min(said) * _SURE_SHARE) if said else None


def least_bytes_named(name: str, setup: TrainingSetup) -> float | None:
    """Return what one GPU must hold at least of a model with that name; None when it says nothing.

    Counted are the weights, and where all of them are trained the optimizer's numbers.
    """
    parameters = parameters_named(name)
    if parameters is None or setup.is_offloaded:
        return None
    held = parameters * _width(name, setup) / (setup.ranks if setup.parts_weights else 1)
    if setup.trains_all:
        state = parameters * optimizer_bytes(setup.optim, trained_width(setup)).low
        held += state / (setup.ranks if setup.parts_optimizer else 1)
    return held


def _width(name: str, setup: TrainingSetup) -> float:
    if _PACKED.search(name):
        return _TWO_BITS
    return _FOUR_BITS if setup.is_quantized else float(setup.weight_bytes)
