"""How far a model's positions reach, against the longest row that the trainer lets through."""

from collections.abc import Iterator, Mapping
from typing import Any

from podproof.compiler.architecture import FAMILIES
from podproof.compiler.model_config import config_at_hand
from podproof.runtime.errors import Problem
from podproof.runtime.plan import ModelInit, Plan

# Types that look positions up in a table of their own: beyond its end there is nothing to look up.
_TABLES: Mapping[str, str] = {
    "bert": "max_position_embeddings",
    "gpt2": "n_positions",
    "gpt_neo": "max_position_embeddings",
    "openai-gpt": "n_positions",
    "opt": "max_position_embeddings",
}
# Where the keys that stretch rotary positions stand, by today's name and by the one before.
_ROPE_KEYS = ("rope_parameters", "rope_scaling")


def position_limit(plan: Plan) -> Iterator[Problem]:
    """Refuse rows longer than the positions that the model has, or has ever seen.

    Rotary positions that its config stretches reach further, by a rule for each kind of stretch:
    they pass. So does a model whose config is not at hand, or of a family that is not counted.
    """
    config, length = config_at_hand(plan.model), plan.arguments.get("max_length")
    if config is None or not isinstance(length, int) or plan.model.trust_remote_code:
        return
    kind = str(config.get("model_type"))
    key = _TABLES.get(kind, "max_position_embeddings" if kind in FAMILIES else "")
    limit = config.get(key, config.get("max_position_embeddings"))
    if not key or not isinstance(limit, int) or not 0 < limit < length or is_stretched(config):
        return
    beyond = "has no positions" if kind in _TABLES else "was made for no positions"
    what = f"rows may have {length:,} tokens, and the model {beyond} beyond {limit:,}"
    way_out = f"set method.max_length={limit}"
    if plan.model.init is ModelInit.RANDOM:
        way_out += f", or model.config.{key}={length}"
    elif kind not in _TABLES:
        way_out += ", or say in gates.skip.api that it shall learn the others"
    yield Problem("method.max_length", what, way_out)


def is_stretched(config: Mapping[str, Any]) -> bool:
    """Tell whether the config stretches rotary positions beyond those it was trained with.

    >>> is_stretched({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}})
    True
    >>> is_stretched({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}})
    False
    """
    given = [value for key in _ROPE_KEYS if isinstance(value := config.get(key), Mapping)]
    kinds = [value.get("rope_type", value.get("type", "default")) for value in given]
    return any(kind != "default" for kind in kinds)
