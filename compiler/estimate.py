"""What a run will need: memory on each GPU, hours and dollars, each as an interval."""

from collections.abc import Iterable
from dataclasses import dataclass

from podproof.compiler.architecture import Architecture, NotEstimated
from podproof.compiler.gpus import Gpu, gpus
from podproof.compiler.interval import Interval
from podproof.compiler.ir import Provider, Run
from podproof.compiler.memory import GB, MemoryNeed, memory_need
from podproof.compiler.model_config import architecture_at_hand
from podproof.compiler.throughput import (
    PastRun,
    Workload,
    flops_per_second,
    flops_per_token,
    learnt,
    step_seconds,
    training_hours,
)
from podproof.compiler.trainable import trainable_parameters
from podproof.compiler.training_setup import TrainingSetup, setup_of, smallest
from podproof.compiler.workload import RowsSeen, workload

CPU = "cpu"
# Rows that are not packed may be short; a batch of rows this long is the least that is certain. Few
# rows may leave a packed one half empty.
_SHORT_ROW = 32


@dataclass(frozen=True)
class DeviceEstimate:
    """A run on one device of the fallback list; `gpu` is None for a pod without one.

    `step_s` is what a step of full rows takes, None where the device's speed is not known; `hours`
    is None too where rows are not, `usd`, for all pods of the run, where its price is not.
    `past_runs` is how many runs on such a device were looked at.
    """

    device: str
    gpu: Gpu | None
    step_s: Interval | None
    hours: Interval | None
    usd: Interval | None
    past_runs: int


@dataclass(frozen=True)
class Estimate:
    """What a run needs.

    `memory` is for batches as configured, of rows as long as `length` tokens. `least_bytes` is
    what cannot be done without: batches as small as recovery may make them, of short rows where
    they are not packed. `flops_per_token` is what training on a token of such a row takes.
    """

    parameters: int
    trainable: int
    length: int
    memory: MemoryNeed
    least_bytes: float
    flops_per_token: float
    train_tokens: Interval | None
    devices: tuple[DeviceEstimate, ...]


def estimate(
    run: Run, *, rows: RowsSeen | None = None, past_runs: Iterable[PastRun] = ()
) -> Estimate | NotEstimated:
    """Return what a run needs; NotEstimated when no config of its model is on this machine.

    `rows` are those at hand, `past_runs` what runs got done before. Nothing is downloaded.
    """
    architecture = architecture_at_hand(run.plan.model)
    if isinstance(architecture, NotEstimated):
        return architecture
    setup = setup_of(run.plan)
    if setup.is_quantized and architecture.experts is not None:
        return NotEstimated("what 4-bit loading does to experts is not known here")
    work, past = workload(run.plan, setup, rows), tuple(past_runs)
    return Estimate(
        parameters=architecture.parameters,
        trainable=trainable_parameters(architecture, run.plan.adapter),
        length=setup.length,
        memory=memory_need(architecture, setup, setup.length),
        least_bytes=_least_bytes(run, architecture),
        flops_per_token=flops_per_token(architecture, setup, setup.length),
        train_tokens=None if work is None else work.train_tokens,
        devices=tuple(_devices(run, architecture, setup, work, past)),
    )


def _least_bytes(run: Run, architecture: Architecture) -> float:
    setup = smallest(run.plan)
    length = setup.length // 2 if setup.is_packed else min(setup.length, _SHORT_ROW)
    return memory_need(architecture, setup, length).total.low


def _devices(
    run: Run,
    architecture: Architecture,
    setup: TrainingSetup,
    work: Workload | None,
    past: tuple[PastRun, ...],
) -> Iterable[DeviceEstimate]:
    names = run.pod.gpu if run.pod.provider is Provider.RUNPOD else ()
    for name in names or (CPU,):
        gpu = gpus().get(name)
        speed = (
            learnt(None, _seen(past, CPU)) if gpu is None else flops_per_second(gpu, setup, past)
        )
        step_s = None if speed is None else step_seconds(architecture, setup, speed)
        hours = None
        if work is not None and speed is not None:
            hours = training_hours(architecture, setup, work, speed)
        usd = _usd(run, gpu, hours)
        yield DeviceEstimate(name, gpu, step_s, hours, usd, len(_seen(past, name)))


def _seen(past: tuple[PastRun, ...], device: str) -> list[float]:
    return [run.flops_per_s for run in past if run.device == device]


def _usd(run: Run, gpu: Gpu | None, hours: Interval | None) -> Interval | None:
    price = None if gpu is None else gpu.usd_per_h(run.pod.cloud)
    if price is None or hours is None:
        return None
    pods = run.pod.gpu_count * run.pod.node_count
    return Interval(hours.low * price.low * pods, hours.high * price.high * pods)


def gigabytes(interval: Interval) -> Interval:
    """Return bytes in GB as GPU makers count them, 2^30 each."""
    return interval.times(1 / GB)
