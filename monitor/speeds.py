"""What a run really got done in a second, from what was estimated of it and its train logs."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from podproof.compiler.throughput import PastRun
from podproof.monitor.fold import in_order
from podproof.runtime.events import Event, EventKind, number_or_none
from podproof.runtime.plan import AdapterKind

# Fewer pairs of logs than this say nothing: the first steps are slow, and some hold an evaluation.
_FEWEST_PAIRS = 3


def past_run(estimated: Mapping[str, Any], events: Iterable[Event]) -> PastRun | None:
    """Return what a run got done on one GPU; None when its events do not tell.

    `estimated` are the details of the memory gate at its launch. Tokens are those the trainer
    counts itself, `num_tokens` of SFT and DPO, over all processes. The speed is the median over
    pairs of train logs that follow each other in one start, so that one evaluation or save between
    two of them does not count.
    """
    ordered = in_order(events)
    device = _device(ordered)
    operations = number_or_none(estimated.get("flops_per_token"))
    processes = number_or_none(estimated.get("processes"))
    speeds = list(_tokens_per_second(ordered))
    if device is None or not operations or not processes or len(speeds) < _FEWEST_PAIRS:
        return None
    try:
        adapter = AdapterKind(str(estimated.get("adapter")))
    except ValueError:
        return None  # written by a release that had other adapters
    return PastRun(device, adapter, operations * statistics.median(speeds) / processes)


def _device(events: Sequence[Event]) -> str | None:
    """Return the GPU's name, or `cpu`; releases before it was told said `cuda:0` alone."""
    for event in reversed(events):
        if event.kind is EventKind.STARTED:
            gpu, device = event.body.get("gpu"), event.body.get("device")
            if isinstance(gpu, str):
                return gpu
            return "cpu" if device == "cpu" else None
    return None


def _tokens_per_second(events: Sequence[Event]) -> Iterator[float]:
    logs = [event for event in events if event.kind is EventKind.TRAIN_LOG]
    for before, after in pairwise(logs):
        tokens = _tokens(after) - _tokens(before)
        seconds = after.time_unix_s - before.time_unix_s
        # The trainer's counter starts again with each start.
        if before.boot == after.boot and tokens > 0 and seconds > 0:
            yield tokens / seconds


def _tokens(event: Event) -> float:
    return number_or_none(event.body.get("num_tokens")) or 0.0
