"""What an adapter names, held against the modules of the model it is for, as PEFT would look.

Asked of the model's config alone, so only of families that compiler/architecture.py has written
down, and of those with experts nothing: PEFT finds names for what they hold as one tensor.
"""

import difflib
from collections.abc import Iterator, Sequence

from podproof.compiler.architecture import Architecture, NotEstimated
from podproof.compiler.model_config import architecture_at_hand
from podproof.compiler.trainable import adapted_layers
from podproof.runtime.errors import Problem
from podproof.runtime.plan import AdapterKind, AdapterPlan, ModelPlan

_ALL_LINEAR = "all-linear"
_EMBEDDING, _HEAD = "model.embed_tokens", "lm_head"
# Modules of every layer that hold no matrix of their own, or one no adapter fits.
_OTHERS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "self_attn.q_norm",
    "self_attn.k_norm",
    "mlp.act_fn",
    "mlp.activation_fn",
    "resid_attn_dropout",
    "resid_mlp_dropout",
    "self_attn",
    "mlp",
)


def adapter_names(model: ModelPlan, adapter: AdapterPlan) -> Iterator[Problem]:
    """Yield a problem for each name that no module of the model has, and for a rank too large."""
    if adapter.kind is AdapterKind.NONE or model.trust_remote_code:
        return
    architecture = architecture_at_hand(model)
    if isinstance(architecture, NotEstimated) or architecture.experts is not None:
        return
    yield from _targets(architecture, adapter)
    yield from _saved(architecture, adapter)
    yield from _rank(architecture, adapter)


def _targets(architecture: Architecture, adapter: AdapterPlan) -> Iterator[Problem]:
    """Refuse a target that PEFT finds nowhere: of several names it passes over the one."""
    paths = [*_linear_paths(architecture), _EMBEDDING, _HEAD]
    for target in adapter.target_modules:
        is_there = any(f".{path}".endswith(f".{target}") for path in paths)
        if is_there or target.lower() == _ALL_LINEAR:
            continue
        what = f"{architecture.model_type} has no linear module {target!r}"
        if len(adapter.target_modules) > 1:
            what += ", and PEFT passes over it without a word"
        names = [linear.name for linear in architecture.linears]
        yield Problem("adapter.target_modules", what, _way_out(target, names))


def _saved(architecture: Architecture, adapter: AdapterPlan) -> Iterator[Problem]:
    """Refuse a module to train whole that is nowhere; PEFT looks at how a path ends, dot or not."""
    layers = [f"model.layers.{index}" for index in range(architecture.layers)]
    paths = [
        *(f"{layer}.{other}" for layer in layers for other in _OTHERS),
        *_linear_paths(architecture),
        *layers,
        *("model.layers", "model.norm", "model.rotary_emb", "model", _EMBEDDING, _HEAD),
    ]
    for name in adapter.modules_to_save:
        if not any(path.endswith(name) for path in paths):
            what = (
                f"{architecture.model_type} has no module {name!r}, and PEFT passes over it "
                "without a word"
            )
            yield Problem("adapter.modules_to_save", what, _way_out(name, [_HEAD, "embed_tokens"]))


def _rank(architecture: Architecture, adapter: AdapterPlan) -> Iterator[Problem]:
    """Refuse a rank that no matrix it is for can have."""
    sides = [min(item.inputs, item.outputs) for item in adapted_layers(architecture, adapter)]
    if sides and adapter.r > max(sides):
        what = (
            f"{adapter.r} is more than the {max(sides)} rows or columns of any matrix it is for: "
            "the adapter would be larger than what it adapts"
        )
        yield Problem("adapter.r", what, "set adapter.r=16, or adapter=none to train every weight")


def _linear_paths(architecture: Architecture) -> list[str]:
    attention = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj")
    return [
        f"model.layers.{index}.{'self_attn' if linear.name in attention else 'mlp'}.{linear.name}"
        for index in range(architecture.layers)
        for linear in architecture.linears
    ]


def _way_out(given: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(given.rpartition(".")[2], names, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    return f"{guess}it has {', '.join(names)}"
