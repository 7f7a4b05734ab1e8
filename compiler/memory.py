"""Bytes of GPU memory that one process of a run needs, part by part, from the model's config alone.

Each part is a function of the model's shape and of the run's setup; its docstring has the formula
and where it is from. A low end is what there is at least, so that a refusal is sure; a high end
adds what may come on top.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from podproof.compiler.activations import activations, evaluated
from podproof.compiler.architecture import Architecture
from podproof.compiler.interval import Interval
from podproof.compiler.trainable import trainable_parameters
from podproof.compiler.training_setup import Sharding, TrainingSetup
from podproof.runtime.plan import MethodName

GB = 2**30

_FLOAT, _HALF = 4, 2
# NF4 with double quantization (Dettmers et al. 2023, section 3): half a byte a weight, a byte for
# each block of 64, and four for each 256 of these blocks.
_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
# TRL 1.16 multiplies with the head in tiles of this many tokens and entries of the vocabulary.
_TILE_TOKENS, _TILE_VOCABULARY = 4096, 32768
# What a process takes before any tensor: CUDA's context, cuBLAS, and with others NCCL's buffers.
_CONTEXT = Interval(0.3 * GB, 1.2 * GB)
_NCCL = Interval(0.1 * GB, 1.5 * GB)
_STEPS_BY_LAYER = ("layerwise", "lomo")
# PyTorch's allocator keeps blocks that fit nothing any more; of what batches come and go with.
_FRAGMENTS = 0.15


@dataclass(frozen=True)
class MemoryNeed:
    """What one GPU must hold while it trains and while it evaluates, in bytes.

    `parts` are those of training; not all of them are at their most at the same time.
    """

    parts: Mapping[str, Interval]
    training: Interval
    evaluation: Interval

    @property
    def total(self) -> Interval:
        """Return the larger of the two."""
        return self.training.at_least(self.evaluation)


def memory_need(architecture: Architecture, setup: TrainingSetup, length: int) -> MemoryNeed:
    """Return what a GPU holds at the worst moment of a step whose rows have `length` tokens.

    With one micro-batch a step there are no gradients yet when activations are at their most, and
    no activations any more when all gradients are there.
    """
    tokens = float(setup.batch * setup.sequences_per_row * length)
    standing = {
        "weights": weights(architecture, setup),
        "reference model": reference(architecture, setup),
        "optimizer": optimizer(architecture, setup),
        "context": context(setup),
        "gathered": gathered(architecture, setup),
    }
    held = gradients(architecture, setup)
    passing = activations(architecture, setup, tokens) + logits(architecture, setup, tokens)
    together = held + passing
    if setup.accumulation == 1:
        together = Interval(held.at_least(passing).low, together.high)
    parts = {
        **standing,
        "gradients": held,
        "activations": activations(architecture, setup, tokens),
        "logits": logits(architecture, setup, tokens),
        "fragments": Interval(0.0, _FRAGMENTS * passing.high),
    }
    base = Interval.total(standing.values())
    training = base + together + parts["fragments"]
    return MemoryNeed(parts, training, base + _evaluation(architecture, setup, length))


def weights(architecture: Architecture, setup: TrainingSetup) -> Interval:
    """Return the weights: as loaded, the trained ones as they are trained, shared out if sharded.

    Adapters on a base of half precision are held in float32 (PEFT's autocast_adapter_dtype), on a
    4-bit base in bfloat16 (TRL), and under ZeRO 3 as the base. FSDP2 holds what it trains in
    float32 when it computes in half precision (accelerate's fsdp2_prepare_model).
    """
    trained = float(trainable_parameters(architecture, setup.adapter) * trained_width(setup))
    if not setup.trains_all:
        trained += _base(architecture, setup)
    held = trained / (setup.ranks if setup.parts_weights else 1)
    return Interval(0.0 if setup.is_offloaded else held, held)


def reference(architecture: Architecture, setup: TrainingSetup) -> Interval:
    """Return the frozen copy that DPO of every weight compares with, as wide as the weights."""
    if not setup.has_reference:
        return Interval(0.0, 0.0)
    held = architecture.parameters * setup.weight_bytes
    return Interval(held / setup.ranks if setup.parts_weights else held, float(held))


def gradients(architecture: Architecture, setup: TrainingSetup) -> Interval:
    """Return one gradient for each trained weight, as wide as it.

    Of several GPUs that each hold a whole model, DDP has a second copy in its buckets. Optimizers
    that step layer by layer hold one layer's, and offloading takes them to the host.
    """
    held = float(trainable_parameters(architecture, setup.adapter) * trained_width(setup))
    is_passing = setup.is_offloaded or setup.optim.endswith(_STEPS_BY_LAYER)
    if setup.parts_gradients:
        return Interval(0.0 if is_passing else held / setup.ranks, 2 * held / setup.ranks)
    return Interval(0.0 if is_passing else held, held * (2 if setup.ranks > 1 else 1))


def optimizer(architecture: Architecture, setup: TrainingSetup) -> Interval:
    """Return the optimizer's numbers for each trained weight, and DeepSpeed's float32 copy of it.

    ZeRO (Rajbhandari et al. 2020, section 3.1) keeps 12 bytes a weight in mixed precision: the
    copy, and Adam's two numbers, each in float32; every stage shares them out.
    """
    count = trainable_parameters(architecture, setup.adapter)
    state = optimizer_bytes(setup.optim, trained_width(setup))
    if setup.sharding is Sharding.ZERO:
        state = Interval(state.low, optimizer_bytes(setup.optim, _FLOAT).high + _FLOAT)
    held = state.times(count / (setup.ranks if setup.parts_optimizer else 1))
    return Interval(0.0 if setup.is_offloaded else held.low, held.high)


def optimizer_bytes(optim: str, width: int) -> Interval:
    """Return the bytes of state for each trained weight of that width, by TrainingArguments.optim.

    Adam's states are as wide as the weight (torch), or a byte each with bitsandbytes' 8 bits; paged
    ones may lie in the memory of the host. Adafactor's are sums of rows and columns, next to
    nothing. What is not known here may need nothing, or as much as Adam and a copy.

    >>> optimizer_bytes("adamw_torch_fused", 4)
    Interval(low=8, high=8)
    >>> optimizer_bytes("paged_adamw_8bit", 2)
    Interval(low=0.0, high=2.1)
    """
    name = optim.removeprefix("paged_")
    if name in _PLAIN:
        held = Interval(_PLAIN[name] * width, _PLAIN[name] * width)
    else:
        held = _STATED.get(name, Interval(0.0, 3.0 * _FLOAT))
    return Interval(0.0, held.high) if optim != name else held


def logits(architecture: Architecture, setup: TrainingSetup, tokens: float) -> Interval:
    """Return what the head leaves: tiles in SFT and DPO, whole logits in ORPO.

    The fused head of TRL 1.16 holds one tile at a time, and the gradients of hidden states, and of
    its weights where these are trained, in float32. ORPO's trainer holds the logits of all tokens
    in float32, as accelerate casts them, and their logarithmic softmax; its high end adds the
    slices it copies and the gradients.
    """
    vocabulary = float(architecture.vocabulary)
    if setup.method is MethodName.ORPO:
        return Interval(6.0, 18.0).times(tokens * vocabulary)
    tile = min(tokens, _TILE_TOKENS) * min(vocabulary, _TILE_VOCABULARY) * setup.compute_bytes
    hidden = tokens * architecture.hidden * _FLOAT
    of_weights = vocabulary * architecture.hidden * _FLOAT if setup.trains_all else 0.0
    return Interval(0.5 * tile, 2 * tile + 2 * hidden + of_weights)


def gathered(architecture: Architecture, setup: TrainingSetup) -> Interval:
    """Return whole weights that are there only while they are worked with.

    Under FSDP and ZeRO 3 one layer is put together, and the next in advance, beside embedding and
    head; a 4-bit base is unpacked matrix by matrix; autocast holds what it cast until the step is
    over.
    """
    layer = architecture.layer_parameters * setup.compute_bytes
    if setup.parts_weights:
        ends = architecture.embedding_parameters * setup.compute_bytes
        return Interval(layer, 4.0 * layer + 2.0 * ends)
    largest = max(linear.parameters for linear in architecture.linears) * setup.compute_bytes
    if setup.is_quantized:
        return Interval(largest, 2.0 * largest)
    if setup.compute_bytes == setup.weight_bytes:
        return Interval(0.0, 0.0)
    cast = architecture.linear_parameters * setup.compute_bytes
    return Interval(largest if setup.has_checkpointing else cast, float(cast + largest))


def context(setup: TrainingSetup) -> Interval:
    """Return what CUDA takes for itself, and NCCL with several GPUs; by experience, not formula."""
    return _CONTEXT + _NCCL if setup.ranks > 1 else _CONTEXT


def trained_width(setup: TrainingSetup) -> int:
    """Return the bytes of one trained weight; see `weights` for whose rule it is."""
    is_half = setup.compute_bytes == _HALF
    if setup.sharding is Sharding.FSDP and is_half:
        return _FLOAT
    if setup.trains_all or setup.zero_stage == 3:  # noqa: PLR2004 - the stage's own number
        return setup.weight_bytes
    if setup.is_quantized and setup.method is not MethodName.ORPO:
        return _HALF
    return _FLOAT


def _base(architecture: Architecture, setup: TrainingSetup) -> float:
    """Return the frozen base of adapters; ORPO puts what is not in 4 bits into float32."""
    count = architecture.parameters
    if not setup.is_quantized:
        return float(count * setup.weight_bytes)
    packed = architecture.linear_parameters
    width = _FLOAT if setup.method is MethodName.ORPO else setup.weight_bytes
    return packed * _NF4_BYTES + (count - packed) * width


def _evaluation(architecture: Architecture, setup: TrainingSetup, length: int) -> Interval:
    """Return what an evaluation's batch needs; gradients and activations are gone by then."""
    if not setup.evaluates:
        return Interval(0.0, 0.0)
    tokens = float(setup.eval_batch * setup.sequences_per_row * length)
    passing = evaluated(architecture, setup, tokens)
    if setup.method is MethodName.ORPO:
        passing += Interval(4.0, 12.0).times(tokens * architecture.vocabulary)
    return passing.times(1.0, 1 + _FRAGMENTS)


# Numbers for each weight, as wide as it is.
_PLAIN: Mapping[str, int] = {
    "adamw_torch": 2,
    "adamw_torch_fused": 2,
    "stable_adamw": 2,
    "schedule_free_adamw": 2,
    "schedule_free_radam": 2,
    "schedule_free_sgd": 1,
    "adagrad": 1,
    "rmsprop": 1,
    "sgd": 0,
}
# Bytes for each weight, whatever its width; with 8 bits and a little for the scales of blocks.
_STATED: Mapping[str, Interval] = {
    "adamw_apex_fused": Interval(4.0, 8.0),
    "adamw": Interval(8.0, 8.0),
    "adamw_32bit": Interval(8.0, 8.0),
    "adamw_8bit": Interval(2.0, 2.1),
    "adamw_bnb_8bit": Interval(2.0, 2.1),
    "adamw_torch_8bit": Interval(2.0, 2.2),
    "adamw_torch_4bit": Interval(1.0, 1.2),
    "lion_32bit": Interval(4.0, 4.0),
    "lion": Interval(4.0, 4.0),
    "lion_8bit": Interval(1.0, 1.1),
    "rmsprop_bnb": Interval(4.0, 4.0),
    "rmsprop_bnb_8bit": Interval(1.0, 1.1),
    "rmsprop_bnb_32bit": Interval(4.0, 4.0),
    "ademamix": Interval(12.0, 12.0),
    "ademamix_8bit": Interval(3.0, 3.2),
    "adafactor": Interval(0.0, 0.1),
}
