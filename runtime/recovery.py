"""Out of memory: train again with smaller batches, so that a step still sees the same rows.

A batch is divided, and the accumulation multiplied, by the smallest whole number that divides the
batch: 8 becomes 4, and 3 becomes 1. The rows of a step, the number of steps, and with them the
evaluations and the learning rates stay what they were. The sizes that fit are written down, so
that a start after a kill does not have to find them again.
"""

import json
import os
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from podproof.runtime.errors import OutOfMemory, Problem
from podproof.runtime.failures import is_out_of_memory
from podproof.runtime.plan import Plan

BATCH_SIZES_FILE = "batch_sizes.json"

_BATCH_DEFAULT = 8  # transformers' own, for training and for evaluation

_Ending = TypeVar("_Ending")


@dataclass(frozen=True)
class BatchSizes:
    """Rows a device takes at once, and micro-batches a step; `halvings` counts the changes."""

    train: int
    accumulation: int
    evaluation: int
    halvings: int = 0

    def describe(self) -> str:
        """Return the sizes in words.

        >>> BatchSizes(4, 2, 8).describe()
        'batch 4 x accumulation 2, evaluation batch 8'
        """
        batch = f"batch {self.train} x accumulation {self.accumulation}"
        return f"{batch}, evaluation batch {self.evaluation}"


def train_in_memory(
    plan: Plan, output: Path, notice: Callable[[str], None], train: Callable[[Plan], _Ending]
) -> _Ending:
    """Return what `train` returns; each time it runs out of memory call it again, batches smaller.

    `train` is given the plan with the sizes to try; it resumes from what it saved before, or
    starts again. Raise OutOfMemory when a batch of one row does not fit, or after `max_halvings`.
    Of several processes one alone cannot start again: the sizes are written down and the error
    goes on, so that the next start of all of them has room.
    """
    sizes = remembered_sizes(plan, output) or planned_sizes(plan)
    while True:
        try:
            return train(with_sizes(plan, sizes))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            place = "an evaluation" if _batch_was_evaluated(error) else "a training step"
            former, sizes = sizes, _sizes_that_may_fit(plan, sizes, error)
            remember_sizes(plan, output, sizes)
            notice(f"out of memory in {place}: {former.describe()} becomes {sizes.describe()}")
            if plan.gpu_count * plan.node_count > 1:
                raise
        # Only here: in the clause above the exception holds the frames, and they the model. The
        # trainer refers to itself, so it takes a collection to free it.
        from accelerate.utils.memory import clear_device_cache

        clear_device_cache(garbage_collection=True)


def planned_sizes(plan: Plan) -> BatchSizes:
    """Return the sizes the plan asks for."""
    arguments = plan.arguments
    return BatchSizes(
        int(arguments.get("per_device_train_batch_size", _BATCH_DEFAULT)),
        int(arguments.get("gradient_accumulation_steps", 1)),
        int(arguments.get("per_device_eval_batch_size", _BATCH_DEFAULT)),
    )


def with_sizes(plan: Plan, sizes: BatchSizes) -> Plan:
    """Return the plan with these sizes; the plan itself when they are its own."""
    if sizes == planned_sizes(plan):
        return plan
    changed = {
        "per_device_train_batch_size": sizes.train,
        "gradient_accumulation_steps": sizes.accumulation,
        "per_device_eval_batch_size": sizes.evaluation,
    }
    return replace(plan, arguments={**plan.arguments, **changed})


def smaller_sizes(sizes: BatchSizes, *, in_evaluation: bool) -> BatchSizes | None:
    """Return the next smaller sizes with the same rows a step; None at a batch of one row.

    >>> smaller_sizes(BatchSizes(4, 2, 8), in_evaluation=False)
    BatchSizes(train=2, accumulation=4, evaluation=8, halvings=1)
    >>> smaller_sizes(BatchSizes(4, 2, 3), in_evaluation=True)
    BatchSizes(train=4, accumulation=2, evaluation=1, halvings=1)
    """
    batch = sizes.evaluation if in_evaluation else sizes.train
    if batch == 1:
        return None
    divisor = next(number for number in range(2, batch + 1) if batch % number == 0)
    halvings = sizes.halvings + 1
    if in_evaluation:
        return replace(sizes, evaluation=batch // divisor, halvings=halvings)
    accumulation = sizes.accumulation * divisor
    return replace(sizes, train=batch // divisor, accumulation=accumulation, halvings=halvings)


def remembered_sizes(plan: Plan, output: Path) -> BatchSizes | None:
    """Return the sizes that an earlier start of this plan found; None when there are none."""
    try:
        fields = json.loads((output / BATCH_SIZES_FILE).read_bytes())
        if fields.pop("config_sha256") != plan.config_sha256:
            return None
        return BatchSizes(**fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        # Without them, or with another's, the plan's own are tried; they may run out again.
        return None


def remember_sizes(plan: Plan, output: Path, sizes: BatchSizes) -> None:
    """Write the sizes down for the next start, whole or not at all."""
    fields = {"config_sha256": plan.config_sha256, **asdict(sizes)}
    draft = output / f"{BATCH_SIZES_FILE}.{os.getpid()}"
    draft.write_text(json.dumps(fields))
    draft.replace(output / BATCH_SIZES_FILE)


def _sizes_that_may_fit(plan: Plan, sizes: BatchSizes, error: Exception) -> BatchSizes:
    smaller = smaller_sizes(sizes, in_evaluation=_batch_was_evaluated(error))
    limit = plan.recovery.oom.max_halvings
    if smaller is None:
        what = "a batch of one row does not fit into memory"
        way_out = "use a larger GPU, a smaller method.max_length, or adapter.kind=qlora"
        raise OutOfMemory(Problem(sizes.describe(), what, way_out)) from error
    if smaller.halvings > limit:
        what = f"does not fit into memory after {sizes.halvings} halvings"
        way_out = "raise recovery.oom.max_halvings, or set a smaller batch"
        raise OutOfMemory(Problem(sizes.describe(), what, way_out)) from error
    return smaller


def _batch_was_evaluated(error: Exception) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name == "evaluation_loop" for frame, _ in frames)
