"""A model's config.json made small: two layers of its architecture, narrow enough for a CPU."""

import re
from collections.abc import Mapping
from typing import Any

LAYERS = 2

# The sizes of a config.json by all their names: two heads of 16, and what must fit them.
_SIZES: Mapping[str, int] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "word_embed_proj_dim"), 32),
    "out_hidden_size": 32,
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 2),
    **dict.fromkeys(("head_dim", "v_head_dim", "qk_nope_head_dim"), 16),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    "qk_rope_head_dim": 8,
    "qk_head_dim": 24,
    # The heads of a state space: twice the width in four heads of 16.
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 16),
    "mamba_d_ssm": 64,
}
_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")
# A model no wider than this is small, and its sizes hang together in ways of its own.
_NARROW = 256
# Those that are lowered to this, but never raised.
_MOST: Mapping[str, int] = {
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"), 64),
    **dict.fromkeys(("moe_intermediate_size", "intermediate_size_mlp"), 64),
    "shared_expert_intermediate_size": 64,
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "max_window_layers"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_groups", "mamba_n_groups"), 1),
    "first_k_dense_replace": 1,
    **dict.fromkeys(("attn_layer_period", "expert_layer_period", "depth"), LAYERS),
    **dict.fromkeys(("attn_layer_offset", "expert_layer_offset"), 1),
    "num_kv_shared_layers": 0,
    "hidden_size_per_layer_input": 16,
    "rotary_dim": 8,
}
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_SHARED_HEADS = ("num_key_value_heads", "num_kv_heads")
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_ROPE_PAIRS = 8  # one factor for each pair of a head's numbers

STAND_IN: Mapping[str, Any] = {"model_type": "llama", "tie_word_embeddings": True}

# Names that tell their architecture, for models whose config is not at hand.
_FAMILIES: Mapping[str, str] = {
    r"meta-llama/(Meta-)?Llama-(2|3|3\.1|3\.3)-\d+b(-.*)?": "llama",
    r"meta-llama/Llama-3\.2-[13]B(-.*)?": "llama",
    r"mistralai/Mistral-(7B|Nemo)-.*": "mistral",
    r"mistralai/Mixtral-8x(7|22)B-.*": "mixtral",
    r"Qwen/Qwen2(\.5)?-(Coder-|Math-)?[\d.]+B(-Instruct)?": "qwen2",
    r"Qwen/Qwen3-[\d.]+B(-Base)?": "qwen3",
    r"Qwen/Qwen3-[\d.]+B-A[\d.]+B(-.*)?": "qwen3_moe",
    r"google/gemma-2-\d+b(-it)?": "gemma2",
    r"HuggingFaceTB/SmolLM2-[\d.]+[MB](-Instruct)?": "llama",
    r"HuggingFaceTB/SmolLM3-3B(-Base)?": "smollm3",
    r"(openai-community/)?(distil)?gpt2(-medium|-large|-xl)?": "gpt2",
}


def family_of(name: str) -> str | None:
    """Return the `model_type` that a well-known hub id tells of; None for any other name.

    >>> family_of("Qwen/Qwen3-8B"), family_of("Qwen/Qwen3-VL-8B")
    ('qwen3', None)
    """
    matches = (kind for form, kind in _FAMILIES.items() if re.fullmatch(f"(?i){form}", name))
    return next(matches, None)


def shrunken_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's config with two small layers, and everything else as it was.

    Layers that are narrow by themselves keep their widths and heads, so that a config whose sizes
    do not fit each other is not mended here, nor one whose sizes do broken.

    Heads that share keys go on to share them, layers of several kinds stay of several kinds, and
    the vocabulary keeps its size, for a tokenizer belongs to it.

    >>> small = shrunken_config({"model_type": "qwen3", "hidden_size": 4096, "head_dim": 128})
    >>> small["hidden_size"], small["head_dim"], small["model_type"]
    (32, 16, 'qwen3')
    """
    layers = next((config[name] for name in _LAYER_COUNTS if name in config), None)
    kept = set(_SIZES) - set(_LAYER_COUNTS) if is_narrow(config) else set()
    small = {
        name: value if name in kept else _shrunken_value(name, value, layers)
        for name, value in config.items()
    }
    return small if kept else {**small, **_shrunken_heads(config)}


def _shrunken_heads(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes of heads that follow from other sizes of the same config."""
    heads = next((config[name] for name in _HEADS if config.get(name)), None)
    small = {
        name: 2 if heads is None or config[name] == heads else 1
        for name in _SHARED_HEADS
        if isinstance(config.get(name), int)
    }
    rotated = config.get("qk_rope_head_dim")
    if rotated is not None and config.get("head_dim") == rotated:
        small["head_dim"] = _SIZES["qk_rope_head_dim"]
    if "expand" in config and "num_heads" in config:
        # In mamba2 the heads fill the expanded width, and no more.
        small["num_heads"] = config["expand"] * _SIZES["hidden_size"] // _SIZES["head_dim"]
    return small


def is_narrow(config: Mapping[str, Any]) -> bool:
    """Tell whether a config's layers are small by themselves."""
    width = next((config[name] for name in _WIDTHS if name in config), None)
    return isinstance(width, int) and width <= _NARROW


def _shrunken_value(name: str, value: Any, layers: Any) -> Any:
    if isinstance(value, Mapping):
        return _shrunken_part(name, value)
    if isinstance(value, list) and layers is not None and len(value) == layers:
        return _two_of(value)
    if isinstance(value, list) and name in {"moe_layers", "mlp_only_layers"}:
        return [index for index in value if index < LAYERS]
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    return min(value, _MOST[name]) if name in _MOST else _SIZES.get(name, value)


def _shrunken_part(name: str, part: Mapping[str, Any]) -> Mapping[str, Any]:
    if not {*_WIDTHS, *_LAYER_COUNTS}.isdisjoint(part):
        return shrunken_config(part)  # the language's, or the picture's, of a model for both
    if name == "per_layer_config":
        return {layer: item for layer, item in part.items() if int(layer) < LAYERS}
    if "rope" in name:
        return {key: _shrunken_rope(item) for key, item in part.items()}
    return part


def _shrunken_rope(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shrunken_rope(item) for key, item in value.items()}
    return value[:_ROPE_PAIRS] if isinstance(value, list) else value


def _two_of(values: list[Any]) -> list[Any]:
    """Return what two layers are, so that kinds which differ are both there."""
    kinds = [value for index, value in enumerate(values) if value not in values[:index]]
    return (kinds + values)[:LAYERS]
