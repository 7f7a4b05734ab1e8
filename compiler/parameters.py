"""How many parameters a run trains, from the model's config alone; dense decoders only."""

from collections.abc import Mapping
from typing import Any

from podproof.runtime.plan import AdapterKind, AdapterPlan

# Model types built of these seven linear layers: a gated MLP, attention with grouped keys.
DENSE_DECODERS = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"})


def trainable_parameters(config: Mapping[str, Any], adapter: AdapterPlan) -> int | None:
    """Return the number of trained parameters; None for a model it cannot count.

    Counted are the weights of the linear layers and embeddings, with LoRA r * (in + out) for each
    layer that it adapts and all of `modules_to_save`. Biases and norms are left out: they are
    below a thousandth.
    """
    if config.get("model_type") not in DENSE_DECODERS:
        return None
    try:
        layers, embeddings = _layers(config), _embeddings(config)
        count = int(config["num_hidden_layers"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    whole = {name: rows * columns * count for name, (rows, columns) in layers.items()} | embeddings
    if adapter.kind is AdapterKind.NONE:
        return sum(whole.values())
    wanted = set(adapter.target_modules)
    chosen = layers.keys() if "all-linear" in wanted else layers.keys() & wanted
    lora = sum(adapter.r * sum(layers[name]) * count for name in chosen)
    return lora + sum(whole.get(name, 0) for name in adapter.modules_to_save)


def _layers(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return inputs and outputs of each linear layer of one block, by the name PEFT matches."""
    hidden, inner = int(config["hidden_size"]), int(config["intermediate_size"])
    heads = int(config["num_attention_heads"])
    keys = int(config.get("num_key_value_heads") or heads)
    head = int(config.get("head_dim") or hidden // heads)
    return {
        "q_proj": (hidden, heads * head),
        "k_proj": (hidden, keys * head),
        "v_proj": (hidden, keys * head),
        "o_proj": (heads * head, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }


def _embeddings(config: Mapping[str, Any]) -> dict[str, int]:
    size = int(config["hidden_size"]) * int(config["vocab_size"])
    return {"embed_tokens": size, "lm_head": 0 if config.get("tie_word_embeddings") else size}
