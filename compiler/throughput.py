"""Time and cost of a run: its arithmetic, over what a GPU gets done, learnt from past runs.

The arithmetic is counted; what share of a GPU's peak a trainer reaches is known only as an
interval. Runs of the past, each with the arithmetic a second it really got done, narrow it.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from podproof.compiler.architecture import Architecture
from podproof.compiler.gpus import Gpu
from podproof.compiler.interval import Interval
from podproof.compiler.trainable import adapter_parameters
from podproof.compiler.training_setup import TrainingSetup
from podproof.runtime.plan import AdapterKind

# The share of the dense bfloat16 peak that trainers of this kind were seen to reach, counting
# what is computed again: Llama 3 says 38 to 43 % on H100, torchtitan and others 30 to 60 %, and
# kernels of small shapes less. The high end is above all of them. Launching kernels is apart.
_SHARE = Interval(0.12, 0.70)
# Unpacking 4-bit weights takes its time before every product.
_SHARE_IN_4_BITS = Interval(0.08, 0.60)
# What several GPUs lose by waiting for each other.
_TOGETHER = Interval(0.5, 1.0)
# Launching a layer's kernels, forward and back, whatever the rows.
_LAYER_S = Interval(0.0, 0.004)

# Runs of one kind that are needed before any of them counts, and what our own guess weighs then.
ENOUGH_RUNS = 3
_PRIOR_RUNS = 3.0
# Two runs of one kind are not alike; this much is allowed on either side of what was seen.
_UNLIKE = 1.25


@dataclass(frozen=True)
class PastRun:
    """What a run of the past got done: arithmetic a second and GPU, on a device of that name.

    `device` is the RunPod id of the GPU, which is also its name for CUDA, or `cpu`.
    """

    device: str
    adapter: AdapterKind
    flops_per_s: float


@dataclass(frozen=True)
class Workload:
    """All that a run computes: tokens trained on, tokens evaluated, micro-batches of each rank."""

    train_tokens: Interval
    eval_tokens: Interval
    micro_batches: Interval


def flops_per_token(
    architecture: Architecture, setup: TrainingSetup, length: int, *, in_head: bool = True
) -> float:
    """Return the operations that training on one token takes, in sequences of that length.

    Kaplan et al. 2020, section 2.1: a product costs 2 for each weight, forward; the gradients of
    its input and of its weight as much again each. Frozen weights have no gradient of their own,
    adapters have all three. Attention adds 2 q length a layer, forward and causal. Checkpointing
    computes the layers once more, and DPO's reference is one more pass forward. A token without a
    label, such as those of a prompt, never gets to the head: `in_head=False`.
    """
    layers = _forward_layers(architecture, length)
    head = 2.0 * architecture.vocabulary * architecture.hidden * in_head
    passes = 3 if setup.trains_all else 2
    adapters = 0 if setup.trains_all else 6 * adapter_parameters(architecture, setup.adapter)
    again = layers if setup.has_checkpointing else 0.0
    compared = layers + head if setup.is_compared else 0.0
    return passes * (layers + head) + adapters + again + compared


def forward_flops_per_token(architecture: Architecture, length: int) -> float:
    """Return the operations of one pass forward for one token, as an evaluation needs them."""
    head = 2.0 * architecture.vocabulary * architecture.hidden
    return _forward_layers(architecture, length) + head


def flops_per_second(gpu: Gpu, setup: TrainingSetup, past: Iterable[PastRun]) -> Interval | None:
    """Return what one GPU gets done in a second; None for one without a known peak or past.

    Only runs on the same GPU count, adapters on 4-bit weights apart from the rest.
    """
    seen = [run.flops_per_s for run in past if _is_alike(run, gpu.gpu_id, setup)]
    if gpu.bf16_tflops is None:
        return learnt(None, seen)
    share = _SHARE_IN_4_BITS if setup.is_quantized else _SHARE
    if setup.compute_bytes > 2:  # noqa: PLR2004 - half precision
        # In float32 tensor cores are used with TF32 at most, at half of the rate.
        share = share.times(0.1, 0.5)
    peak = gpu.bf16_tflops * 1e12
    together = _TOGETHER if setup.ranks > 1 else Interval(1.0, 1.0)
    return learnt(share.times(together.low, together.high).times(peak), seen)


def learnt(prior: Interval | None, seen: Sequence[float]) -> Interval | None:
    """Return the prior moved to what was seen and narrowed by it; the prior for fewer than three.

    All in logarithms, since speeds differ by factors. The centre is the mean of the prior's and
    of the median seen, weighed 3 to the number of runs. The half width is that of the prior, less
    by the same weight, and never so small that the middle half of what was seen lies outside.
    Without a prior the interval is what was seen, and a quarter more on either side.

    >>> learnt(Interval(1.0, 100.0), [9.0, 10.0])
    Interval(low=1.0, high=100.0)
    >>> narrow = learnt(Interval(1.0, 100.0), [20.0] * 30)
    >>> narrow is not None and 10 < narrow.low < 20 < narrow.high < 40
    True
    """
    usable = sorted(value for value in seen if value > 0 and math.isfinite(value))
    if len(usable) < ENOUGH_RUNS:
        return prior
    if prior is None:
        return Interval(usable[0] / _UNLIKE, usable[-1] * _UNLIKE)
    weight = len(usable) / (len(usable) + _PRIOR_RUNS)
    median = math.log(statistics.median(usable))
    centre = (1 - weight) * math.log(prior.middle) + weight * median
    half = (1 - weight) * math.log(prior.high / prior.low) / 2
    quarter, _, three = statistics.quantiles(usable, n=4, method="inclusive")
    return Interval(
        min(math.exp(centre - half), quarter / _UNLIKE),
        max(math.exp(centre + half), three * _UNLIKE),
    )


def step_seconds(architecture: Architecture, setup: TrainingSetup, speed: Interval) -> Interval:
    """Return what one step takes whose rows are all as long as they may be."""
    rows = setup.batch * setup.accumulation
    tokens = rows * setup.sequences_per_row * setup.length
    operations = tokens * flops_per_token(architecture, setup, setup.length)
    launching = _LAYER_S.times(float(architecture.layers * setup.accumulation))
    return Interval.exactly(operations).over(speed) + launching


def training_hours(
    architecture: Architecture, setup: TrainingSetup, work: Workload, speed: Interval
) -> Interval:
    """Return the hours a run trains and evaluates, on all of its GPUs together.

    Loading the model, saving and delivering are not in it.
    """
    training = work.train_tokens.times(
        flops_per_token(architecture, setup, 1, in_head=False),
        flops_per_token(architecture, setup, setup.length),
    )
    evaluating = work.eval_tokens.times(
        _forward_layers(architecture, 1), forward_flops_per_token(architecture, setup.length)
    )
    seconds = (training + evaluating).over(speed.times(float(setup.ranks)))
    launching = _LAYER_S.times(architecture.layers).times(
        work.micro_batches.low, work.micro_batches.high
    )
    return (seconds + launching).times(1 / 3600)


def _forward_layers(architecture: Architecture, length: int) -> float:
    attention = 2.0 * architecture.queries * length * architecture.layers
    return 2.0 * architecture.working_parameters + attention


def _is_alike(run: PastRun, device: str, setup: TrainingSetup) -> bool:
    is_quantized = run.adapter is AdapterKind.QLORA
    return run.device == device and is_quantized == setup.is_quantized
