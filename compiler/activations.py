"""Bytes that a layer keeps for its backward pass, tensor by tensor, for one token.

Read off the layers of transformers' llama family with fused attention (SDPA or FlashAttention),
and held against what torch really saves: tests/compiler/test_activations.py counts it with
saved_tensors_hooks. Korthikanti et al. 2022, section 4, do the same sum for GPT.

A residual stream is as wide as the weights, what matrices are multiplied with as wide as the
arithmetic: w and c below. h, f, q and k are the widths of hidden states, of the inner layer, of
all queries, and of all keys.
"""

from collections.abc import Iterable, Iterator

from podproof.compiler.architecture import Architecture, LinearLayer
from podproof.compiler.interval import Interval
from podproof.compiler.trainable import adapted_layers
from podproof.compiler.training_setup import TrainingSetup

_FLOAT = 4
# A plain product keeps a probability for each pair of tokens: softmax in float32, and its copy.
_EAGER = "eager"
# transformers has no SDPA for it, since it caps the logits of its attention.
_ALWAYS_EAGER = ("gemma2",)
# Their norms are multiplied with their weights before they are cast back.
_NORMED_IN_FLOAT = ("gemma", "gemma2", "gemma3_text", "olmo2")


def kept_by_layer(architecture: Architecture, setup: TrainingSetup) -> float:
    """Return the bytes one layer keeps for each token, without activation checkpointing."""
    return (
        _norms(architecture, setup)
        + _attention(architecture, setup)
        + _inner(architecture, setup)
        + _matrix_inputs(architecture, setup)
    )


def kept_at_border(architecture: Architecture, setup: TrainingSetup) -> float:
    """Return the bytes kept for each token between two layers: the residual stream, h w."""
    return float(architecture.hidden * setup.weight_bytes)


def activations(architecture: Architecture, setup: TrainingSetup, tokens: float) -> Interval:
    """Return the bytes of activations at the worst moment of a backward pass over these tokens.

    With checkpointing each layer leaves its input, and one layer at a time is computed again
    (Chen et al. 2016). The high end adds that layer's gradients, about as much again, and all that
    dropout and casts keep on top; the low end leaves room for kernels that keep less.
    """
    layer = kept_by_layer(architecture, setup) * tokens
    border = kept_at_border(architecture, setup) * tokens
    if setup.has_checkpointing:
        return Interval(
            0.8 * (architecture.layers * border + layer), _all(architecture) * border + 2.5 * layer
        )
    return Interval(0.7 * architecture.layers * layer, 1.25 * (architecture.layers + 1) * layer)


def evaluated(architecture: Architecture, setup: TrainingSetup, tokens: float) -> Interval:
    """Return the bytes of the widest layer of a forward pass that keeps nothing."""
    widest = max(architecture.intermediate, architecture.queries)
    once = tokens * (architecture.hidden * setup.weight_bytes + widest * setup.compute_bytes)
    return Interval(once, 4 * once)


def _all(architecture: Architecture) -> int:
    return architecture.layers + 1


def _norms(architecture: Architecture, setup: TrainingSetup) -> float:
    """Return 4 h + w h + 4 for each RMSNorm: its input in float32, the normed input, the factor.

    A frozen norm needs no gradient of its weight, so the normed input is not kept. Queries and
    keys that are normed count like hidden states, with a factor for each head or each of the two.
    """
    features, factors = architecture.norms * architecture.hidden, architecture.norms
    if architecture.head_norms or architecture.wide_norms:
        features += architecture.queries + architecture.keys
        factors += architecture.heads + architecture.kv_heads if architecture.head_norms else 2
    width = _FLOAT if architecture.model_type in _NORMED_IN_FLOAT else setup.weight_bytes
    normed = width if setup.trains_all else 0
    return float(features * (_FLOAT + normed) + factors * _FLOAT)


def _attention(architecture: Architecture, setup: TrainingSetup) -> float:
    """Return (2 q + 2 k) c + 4 per head: queries, output, keys, values, and the log of the sum."""
    pairs = 2 * (architecture.queries + architecture.keys)
    kept = pairs * setup.compute_bytes + _FLOAT * architecture.heads
    if setup.attention == _EAGER or architecture.model_type in _ALWAYS_EAGER:
        kept += architecture.heads * setup.length * (_FLOAT + setup.compute_bytes)
    return float(kept)


def _inner(architecture: Architecture, setup: TrainingSetup) -> float:
    """Return 3 f c: what goes into the activation function, what comes out, and its factor.

    One matrix for both halves, as phi3 has it, is kept once more as a whole. Of experts as many
    work on a token as the model's config says.
    """
    width = architecture.intermediate
    if architecture.model_type == "phi3":
        return 4.0 * width * setup.compute_bytes
    if architecture.experts is not None:
        experts = architecture.experts
        width = experts.per_token * experts.parameters // (experts.count * 3 * architecture.hidden)
    return 3.0 * width * setup.compute_bytes


def _matrix_inputs(architecture: Architecture, setup: TrainingSetup) -> float:
    """Return the inputs of the matrices that are trained, each once where nothing is cast.

    Autocast casts the input of each matrix anew, and a LoRA matrix, held in float32, its own too.
    With dropout a LoRA matrix has an input of its own, and a mask of one byte for each feature.
    """
    width, adapter = setup.compute_bytes, setup.adapter
    is_cast = setup.compute_bytes != setup.weight_bytes
    if setup.trains_all:
        return float(width * sum(_inputs(architecture.linears, is_shared=not is_cast)))
    layers = adapted_layers(architecture, adapter)
    is_shared = width == _FLOAT and not adapter.lora_dropout
    mask = 1 if adapter.lora_dropout else 0
    low_rank = width * adapter.r * len(layers)
    inputs = sum(_inputs(layers, is_shared=is_shared))
    if not is_shared:
        inputs += sum(linear.inputs for linear in layers if linear.name == _OUTPUT)
    return float((width + mask) * inputs + low_rank)


def _inputs(layers: Iterable[LinearLayer], *, is_shared: bool) -> Iterator[int]:
    """Yield the widths of the inputs kept; what goes into the output matrix attention keeps itself.

    Where inputs are shared, q, k and v take the same hidden states, and so do gate and up.
    """
    seen = set()
    for linear in layers:
        group = _SHARED.get(linear.name, linear.name)
        if linear.name != _OUTPUT and not (is_shared and group in seen):
            seen.add(group)
            yield linear.inputs


_OUTPUT = "o_proj"
_SHARED = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}
