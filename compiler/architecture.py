"""The shape of a model from its config alone: every weight counted, none loaded.

The families are those whose layers are written down in `_FAMILIES`; for each of them a test builds
the model of transformers and holds the count against it. Any other is NotEstimated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NotEstimated:
    """Why something cannot be estimated, in words that follow `not estimated: `."""

    reason: str


@dataclass(frozen=True)
class LinearLayer:
    """A matrix of every layer that torch knows as nn.Linear: what LoRA and 4-bit loading take."""

    name: str
    inputs: int
    outputs: int
    has_bias: bool = False

    @property
    def parameters(self) -> int:
        """Return its weights, the bias with them."""
        return self.inputs * self.outputs + self.outputs * self.has_bias


@dataclass(frozen=True)
class Experts:
    """The experts of a layer, held as two tensors that are no nn.Linear; `per_token` of them work.

    `parameters` counts all of them, the router apart.
    """

    count: int
    per_token: int
    parameters: int


@dataclass(frozen=True)
class Architecture:
    """What decides memory and arithmetic of a decoder; sizes are numbers of weights or features.

    `linears` are those of one layer. `norms` are its norms over hidden states; with `head_norms`
    queries and keys are normed head by head, with `wide_norms` each as a whole.
    """

    model_type: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    is_tied: bool
    linears: tuple[LinearLayer, ...]
    norms: int = 2
    head_norms: bool = False
    wide_norms: bool = False
    experts: Experts | None = None

    @property
    def queries(self) -> int:
        """Return the width of all queries of a token."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Return the width of all keys of a token, which is also that of the values."""
        return self.kv_heads * self.head_dim

    @property
    def linear_parameters(self) -> int:
        """Return the weights of every nn.Linear but the head."""
        return self.layers * sum(linear.parameters for linear in self.linears)

    @property
    def layer_parameters(self) -> int:
        """Return the weights of one layer."""
        experts = 0 if self.experts is None else self.experts.parameters
        router = 0 if self.experts is None else self.experts.count * self.hidden
        norms = self.norms * self.hidden + 2 * self.head_dim * self.head_norms
        norms += (self.queries + self.keys) * self.wide_norms
        return sum(linear.parameters for linear in self.linears) + norms + experts + router

    @property
    def embedding_parameters(self) -> int:
        """Return the weights of the embedding, and of the head where it is not the same tensor."""
        return self.vocabulary * self.hidden * (1 if self.is_tied else 2)

    @property
    def parameters(self) -> int:
        """Return all weights: the layers, the embedding, the head, the last norm."""
        return self.layers * self.layer_parameters + self.embedding_parameters + self.hidden

    @property
    def working_parameters(self) -> int:
        """Return the weights of the layers that one token is multiplied with."""
        linear = sum(linear.parameters for linear in self.linears)
        if self.experts is None:
            return self.layers * linear
        share = self.experts.parameters * self.experts.per_token // self.experts.count
        return self.layers * (linear + share)


@dataclass(frozen=True)
class _Family:
    """What differs between families.

    None for `kv_heads` means as many as there are heads, for `head_dim` hidden over heads. Biases
    that a family takes are there when its config says so.
    """

    norms: int = 2
    tied: bool = False
    kv_heads: int | None = None
    head_dim: int | None = None
    query_bias: bool = False
    takes_attention_bias: bool = False
    takes_mlp_bias: bool = False
    head_norms: bool = False
    wide_norms: bool = False
    is_fused: bool = False
    has_experts: bool = False


_FAMILIES: Mapping[str, _Family] = {
    "llama": _Family(takes_attention_bias=True, takes_mlp_bias=True),
    "mistral": _Family(kv_heads=8),
    "qwen2": _Family(kv_heads=32, query_bias=True),
    "qwen3": _Family(kv_heads=32, head_dim=128, takes_attention_bias=True, head_norms=True),
    "gemma": _Family(tied=True, kv_heads=16, head_dim=256, takes_attention_bias=True),
    "gemma2": _Family(norms=4, tied=True, kv_heads=4, head_dim=256, takes_attention_bias=True),
    "gemma3_text": _Family(
        norms=4, tied=True, kv_heads=4, head_dim=256, takes_attention_bias=True, head_norms=True
    ),
    "phi3": _Family(is_fused=True),
    "olmo2": _Family(takes_attention_bias=True, wide_norms=True),
    "granite": _Family(takes_attention_bias=True, takes_mlp_bias=True),
    "smollm3": _Family(tied=True, kv_heads=4, takes_attention_bias=True, takes_mlp_bias=True),
    "mixtral": _Family(kv_heads=8, has_experts=True),
    "qwen3_moe": _Family(kv_heads=4, takes_attention_bias=True, head_norms=True, has_experts=True),
}
FAMILIES = tuple(_FAMILIES)

_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def architecture_of(config: Mapping[str, Any]) -> Architecture | NotEstimated:
    """Return the shape that a config of transformers describes, as its config.json has it.

    What a config leaves out is taken as the family's own config class takes it.
    """
    model_type = str(config.get("model_type"))
    family = _FAMILIES.get(model_type)
    if family is None:
        return NotEstimated(f"its model_type {model_type} is not among {', '.join(FAMILIES)}")
    missing = [key for key in (*_NEEDED, "vocab_size") if not _is_size(config.get(key))]
    if missing:
        return NotEstimated(f"its config has no whole number for {', '.join(missing)}")
    if "quantization_config" in config:
        return NotEstimated("its weights are quantized already")
    try:
        return _built(model_type, family, config)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        return NotEstimated(f"its config cannot be read: {error}")


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _built(
    model_type: str, family: _Family, config: Mapping[str, Any]
) -> Architecture | NotEstimated:
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or family.kv_heads or heads)
    head_dim = int(config.get("head_dim") or family.head_dim or hidden // heads)
    widths = _Widths(
        hidden, int(config["intermediate_size"]), heads * head_dim, kv_heads * head_dim
    )
    experts = _experts(config, hidden) if family.has_experts else None
    if isinstance(experts, NotEstimated):
        return experts
    return Architecture(
        model_type=model_type,
        layers=int(config["num_hidden_layers"]),
        hidden=hidden,
        intermediate=widths.intermediate,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=int(config["vocab_size"]),
        is_tied=bool(config.get("tie_word_embeddings", family.tied)),
        linears=tuple(_linears(family, config, widths)),
        norms=family.norms,
        head_norms=family.head_norms,
        wide_norms=family.wide_norms,
        experts=experts,
    )


@dataclass(frozen=True)
class _Widths:
    hidden: int
    intermediate: int
    queries: int
    keys: int


def _linears(family: _Family, config: Mapping[str, Any], widths: _Widths) -> list[LinearLayer]:
    bias = family.takes_attention_bias and bool(config.get("attention_bias"))
    mlp_bias = family.takes_mlp_bias and bool(config.get("mlp_bias"))
    hidden, inner, queries, keys = (
        widths.hidden,
        widths.intermediate,
        widths.queries,
        widths.keys,
    )
    if family.is_fused:
        return [
            LinearLayer("qkv_proj", hidden, queries + 2 * keys),
            LinearLayer("o_proj", queries, hidden),
            LinearLayer("gate_up_proj", hidden, 2 * inner),
            LinearLayer("down_proj", inner, hidden),
        ]
    attention = [
        LinearLayer("q_proj", hidden, queries, bias or family.query_bias),
        LinearLayer("k_proj", hidden, keys, bias or family.query_bias),
        LinearLayer("v_proj", hidden, keys, bias or family.query_bias),
        LinearLayer("o_proj", queries, hidden, bias),
    ]
    if family.has_experts:
        return attention
    return [
        *attention,
        LinearLayer("gate_proj", hidden, inner, mlp_bias),
        LinearLayer("up_proj", hidden, inner, mlp_bias),
        LinearLayer("down_proj", inner, hidden, mlp_bias),
    ]


def _experts(config: Mapping[str, Any], hidden: int) -> Experts | NotEstimated:
    count = config.get("num_local_experts", config.get("num_experts"))
    per_token = config.get("num_experts_per_tok")
    inner = config.get("moe_intermediate_size", config["intermediate_size"])
    sizes = (count, per_token, inner)
    if not all(_is_size(size) for size in sizes):
        return NotEstimated("its config does not say how many experts there are")
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        return NotEstimated("only some of its layers have experts")
    experts, working, width = (int(size) for size in sizes if size is not None)
    return Experts(experts, working, experts * 3 * hidden * width)
