"""The memory gate: does a run fit on every GPU it may land on, and into its time and its budget."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from podproof.compiler.architecture import NotEstimated
from podproof.compiler.estimate import DeviceEstimate, Estimate, estimate, gigabytes
from podproof.compiler.gpus import Gpu, gpus
from podproof.compiler.interval import Interval
from podproof.compiler.ir import PodScript, Provider, Run
from podproof.compiler.memory import GB
from podproof.compiler.named_size import least_bytes_named
from podproof.compiler.throughput import ENOUGH_RUNS
from podproof.compiler.training_setup import setup_of
from podproof.compiler.workload import RowsSeen
from podproof.harness.precision import rounded_away
from podproof.harness.verdict import Surroundings
from podproof.runtime.data import find_data_file
from podproof.runtime.errors import Problem
from podproof.runtime.plan import AdapterKind, DataPlan, DataSource, ModelInit

# What a GPU of a stated size has for programs: error correction and drivers take a part of it.
_USABLE = 0.93
_LINES = frozenset({DataSource.JSONL, DataSource.CSV})
_LARGEST_JSON = 50 * 2**20
# As many devices as a summary has room for.
_SHOWN = 3
# This share of the low end of time or cost must be over the limit: rows may hold columns that
# nobody trains on.
_SURE = 0.25
# What torch, CUDA's libraries and the rest take on a pod, in GB of 10^9 bytes; about 12 in fact.
_PACKAGES_GB = 8
_TWO_DIGITS, _TWO_HOURS = 9.95, 2.0


def memory_answer(
    script: PodScript, surroundings: Surroundings
) -> tuple[str, tuple[Problem, ...], dict[str, Any]]:
    """Return what the run is estimated to need, and a problem for each GPU it cannot fit on.

    Only what is certain refuses: the low end of the smallest batches that recovery.oom allows, on
    any GPU of the list; and a low end of time or cost, on all of them, that is over pod.max_hours
    or pod.max_usd. A model whose config is not at hand is not estimated; a GPU is refused only when
    its weights alone, as many as its name says, do not fit.
    """
    run = script.run
    rows = rows_seen(run.plan.data, surroundings.data_roots)
    needs = estimate(run, rows=rows, past_runs=surroundings.past_runs)
    if isinstance(needs, NotEstimated):
        by_name = tuple(_too_small_by_name(run))
        return f"memory not estimated: {needs.reason}", by_name, {"not_estimated": needs.reason}
    details = {
        **details_of(needs),
        "adapter": run.plan.adapter.kind.value,
        "processes": max(1, run.plan.gpu_count) * run.plan.node_count,
    }
    problems = (
        *_too_small(run, needs),
        *_too_little_disk(run, needs),
        *_too_long(run, needs),
        *_too_dear(run, needs),
    )
    told = (*_summary(needs), *_may_be_late(run, needs), *rounded_away(run))
    return "; ".join(told), problems, details


def rows_seen(plan: DataPlan, roots: Sequence[Path]) -> RowsSeen | None:
    """Return how many rows the files at hand have, counted by lines; None when none is at hand.

    Rows on the hub, on the pod's volume and in Parquet are not at hand.
    """
    train = _counted(plan, plan.path, roots)
    if train is None or not train[0]:
        return None
    evaluation = None if plan.eval.path is None else _counted(plan, plan.eval.path, roots)
    return RowsSeen(train[0], evaluation[0] if evaluation else 0, train[1] / train[0])


def details_of(needs: Estimate) -> dict[str, Any]:
    """Return the estimate as JSON values: bytes in GB (2^30), intervals as [low, high]."""
    parts = {name: _pair(gigabytes(part)) for name, part in needs.memory.parts.items()}
    return {
        "parameters": needs.parameters,
        "trainable_parameters": needs.trainable,
        "memory_gb": _pair(gigabytes(needs.memory.total)),
        "memory_parts_gb": parts,
        "least_memory_gb": round(needs.least_bytes / GB, 3),
        "rows_of_tokens": needs.length,
        "flops_per_token": needs.flops_per_token,
        "train_tokens": None if needs.train_tokens is None else _pair(needs.train_tokens),
        "devices": [
            {
                "device": device.device,
                "memory_gb": None if device.gpu is None else device.gpu.memory_gb,
                "full_step_s": None if device.step_s is None else _pair(device.step_s),
                "hours": None if device.hours is None else _pair(device.hours),
                "usd": None if device.usd is None else _pair(device.usd),
                "past_runs": device.past_runs,
            }
            for device in needs.devices
        ],
    }


def _pair(interval: Interval) -> list[float]:
    return [round(interval.low, 3), round(interval.high, 3)]


def _counted(plan: DataPlan, path: str, roots: Sequence[Path]) -> tuple[int, int] | None:
    """Return the rows of a file and its bytes; None for what cannot be counted here."""
    is_at_hand = plan.source is not DataSource.HUB and not path.startswith("/workspace/")
    file = find_data_file(path, tuple(roots)) if is_at_hand else None
    if file is None:
        return None
    size = file.stat().st_size
    if plan.source in _LINES:
        with file.open("rb") as lines:
            return sum(1 for line in lines if not line.isspace()), size
    if plan.source is DataSource.JSON and size <= _LARGEST_JSON:
        return _counted_json(file), size
    return None


def _counted_json(file: Path) -> int:
    try:
        rows = json.loads(file.read_bytes())
    except ValueError:
        return 0  # the data gate says what is wrong with it
    return len(rows) if isinstance(rows, list) else 0


def _too_small(run: Run, needs: Estimate) -> Iterator[Problem]:
    """Refuse every GPU that not even the smallest batch fits on: the pod may land on any."""
    for device in needs.devices:
        if device.gpu is None or needs.least_bytes <= device.gpu.memory_gb * GB:
            continue
        least = needs.least_bytes / GB
        what = (
            f"{device.device} has {device.gpu.memory_gb} GB of memory, and each GPU needs at least "
            f"{least:.0f} GB, whatever the batch: {_largest_parts(needs)}"
        )
        yield Problem("pod.gpu", what, _smaller(run))


def _too_little_disk(run: Run, needs: Estimate) -> Iterator[Problem]:
    """Refuse a container's disk that packages and the model's files, 2 bytes a weight, overflow."""
    model, pod = run.plan.model, run.pod
    is_downloaded = model.init is ModelInit.PRETRAINED and not model.name_or_path.startswith("/")
    is_elsewhere = any(name.startswith(("HF_", "UV_", "XDG_")) for name, _ in pod.env)
    if pod.provider is Provider.LOCAL or not is_downloaded or is_elsewhere or model.gguf_file:
        return
    weights_gb = 2 * needs.parameters / 1e9
    if weights_gb + _PACKAGES_GB > pod.container_disk_gb:
        what = (
            f"{pod.container_disk_gb} GB do not hold the packages and the model, which is "
            f"{weights_gb:.0f} GB to download"
        )
        least = math.ceil(weights_gb * 1.1) + 2 * _PACKAGES_GB
        yield Problem("pod.container_disk_gb", what, f"set pod.container_disk_gb={least}")


def _too_small_by_name(run: Run) -> Iterator[Problem]:
    name = run.plan.model.name_or_path
    least = least_bytes_named(name, setup_of(run.plan))
    if least is None or run.plan.model.init is ModelInit.RANDOM:
        return
    rented = run.pod.gpu if run.pod.provider is Provider.RUNPOD else ()
    for gpu in (gpus()[gpu] for gpu in rented if gpu in gpus()):
        if least > gpu.memory_gb * GB:
            what = (
                f"{gpu.gpu_id} has {gpu.memory_gb} GB of memory, and what {name} has by its name "
                f"takes at least {least / GB:.0f} GB on each GPU"
            )
            yield Problem("pod.gpu", what, _smaller(run))


def _largest_parts(needs: Estimate) -> str:
    standing = ("weights", "reference model", "gradients", "optimizer")
    parts = [(needs.memory.parts[name].low / GB, name) for name in standing]
    large = sorted((part for part in parts if part[0] >= 1), reverse=True)
    return ", ".join(f"{name} {size:.0f} GB" for size, name in large)


def _smaller(run: Run) -> str:
    kind = run.plan.adapter.kind
    if kind is AdapterKind.NONE:
        return "set adapter=lora, name a larger GPU, or shard it: pod.gpu_count and trainer.fsdp"
    if kind is AdapterKind.LORA:
        return "set adapter=qlora, or take it off the list and name a larger GPU"
    return "take it off the list and name a larger GPU, or choose a smaller model"


def _too_long(run: Run, needs: Estimate) -> Iterator[Problem]:
    # Of a machine without a GPU nothing is known but what it did with other models.
    hours = [device.hours for device in needs.devices if device.hours is not None and device.gpu]
    if len(hours) < len(needs.devices) or not hours:
        return
    least = _SURE * min(interval.low for interval in hours)
    if least > run.pod.max_hours:
        what = (
            f"{run.pod.max_hours:g} h end before training does, which takes {least:.1f} h at least"
        )
        yield Problem("pod.max_hours", what, _shorter("pod.max_hours"))


def _may_be_late(run: Run, needs: Estimate) -> Iterator[str]:
    hours = [device.hours for device in needs.devices if device.hours is not None]
    if hours and min(interval.high for interval in hours) > run.pod.max_hours:
        yield f"pod.max_hours={run.pod.max_hours:g} may end it first"


def _too_dear(run: Run, needs: Estimate) -> Iterator[Problem]:
    usd = [device.usd for device in needs.devices if device.usd is not None]
    if run.pod.max_usd is None or len(usd) < len(needs.devices) or not usd:
        return
    least = _SURE * min(interval.low for interval in usd)
    if least > run.pod.max_usd:
        what = f"{run.pod.max_usd:g} USD end before training does, which costs {least:.2f} at least"
        yield Problem("pod.max_usd", what, _shorter("pod.max_usd"))


def _shorter(key: str) -> str:
    return (
        f"raise {key}, set trainer.max_steps or data.max_rows, or say in gates.skip.memory that "
        "the best by then will do"
    )


def _summary(needs: Estimate) -> Iterator[str]:
    yield f"{_count(needs.parameters)} parameters, {_count(needs.trainable)} trained"
    rented = [device for device in needs.devices if device.gpu is not None]
    if rented:
        yield from _memory_words(needs, [device.gpu for device in rented if device.gpu])
    else:
        yield "no GPU to hold them against"
    words = [word for device in needs.devices if (word := _device_words(device))]
    yield from words[:_SHOWN] or ["time not estimated: its speed is not known"]
    if len(words) > _SHOWN:
        yield f"{len(words) - _SHOWN} GPUs more"


def _memory_words(needs: Estimate, found: Sequence[Gpu]) -> Iterator[str]:
    total = gigabytes(needs.memory.total)
    sizes = " or ".join(str(size) for size in sorted({gpu.memory_gb for gpu in found}))
    at = f"with rows of {needs.length:,} tokens"
    yield f"{_span(total)} GB of {sizes} GB on each GPU {at}"
    least = min(gpu.memory_gb for gpu in found)
    if total.low > least:
        yield f"on {least} GB long rows will not fit and the batch will be halved"
    elif total.high > least * _USABLE:
        yield f"on {least} GB it may not fit, and then the batch is halved"


def _device_words(device: DeviceEstimate) -> str:
    if device.step_s is None:
        return ""
    name = "this machine" if device.gpu is None else device.gpu.display_name
    learnt = f", learnt from {device.past_runs} runs" if device.past_runs >= ENOUGH_RUNS else ""
    step = f"a full step {_span(device.step_s)} s"
    if device.hours is None:
        return f"{name}: {step}{learnt}, rows not counted"
    cost = "" if device.usd is None else f", {_span(device.usd)} USD"
    return f"{name}: {step}, {_duration(device.hours)}{cost}{learnt}"


def _duration(hours: Interval) -> str:
    """Return hours in words, in minutes where they are few.

    >>> _duration(Interval(0.1, 0.5)), _duration(Interval(2.0, 30.0))
    ('6.0 to 30 min in all', '2.0 to 30 h in all')
    """
    if hours.high < _TWO_HOURS:
        return f"{_span(hours.times(60))} min in all"
    return f"{_span(hours)} h in all"


def _span(interval: Interval) -> str:
    """Return an interval in words, two figures each: `3.1 to 12`, or `up to 12`."""
    high = _figures(interval.high)
    if interval.low < interval.high / 200:
        return f"up to {high}"
    low = _figures(interval.low)
    return high if low == high else f"{low} to {high}"


def _figures(value: float) -> str:
    """Return a number with two figures.

    >>> _figures(187.2), _figures(3.14), _figures(0.0456)
    ('187', '3.1', '0.046')
    """
    return f"{value:.0f}" if value >= _TWO_DIGITS else f"{value:#.2g}"


def _count(number: int) -> str:
    """Return a count in the words of model names.

    >>> _count(8_190_735_360), _count(134_515_008)
    ('8.19 B', '134.5 M')
    """
    if number >= 10**9:
        return f"{number / 10**9:.2f} B"
    return f"{number / 10**6:.1f} M"
