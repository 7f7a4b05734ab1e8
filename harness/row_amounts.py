"""How many rows there are, against what the config asks of them: batches, steps, a share."""

import math
from collections.abc import Iterator

from podproof.runtime.arithmetic import Arithmetic, arithmetic
from podproof.runtime.errors import Problem
from podproof.runtime.plan import Plan

_DEFAULT_EVAL_BATCH_SIZE = 8
# Fewer rows are a first try, with whatever batch and share the real run will have.
_FEWEST_MEANT = 50


def amount_problems(plan: Plan, train: int, evaluation: int) -> Iterator[Problem]:
    """Refuse what can have no step, no evaluation or no row of what the config asks for.

    `train` and `evaluation` are the rows of each. With packing nobody knows how many sequences
    they become, and nothing is refused for their number.
    """
    numbers = arithmetic(plan, train)
    if not plan.arguments.get("packing"):
        yield from _no_batch(plan, numbers)
        yield from _no_full_step(plan, numbers)
    if not _packs_evaluation(plan):
        yield from _no_eval_batch(plan, evaluation)
    yield from _no_share(plan, train + evaluation, evaluation)


def amount_notices(plan: Plan, train: int, evaluation: int) -> Iterator[str]:
    """Say when a step asks for more rows than an epoch has, and when one row chooses."""
    numbers = arithmetic(plan, train)
    asked = numbers.sequences_per_step
    if numbers.steps_per_epoch == 1 and asked > train:
        yield f"a step asks for {asked:,} rows and gets the {train:,} there are, once an epoch"
    if evaluation == 1 and plan.arguments.get("eval_strategy", "no") != "no":
        yield "the checkpoint is chosen by a single eval row"


def _no_batch(plan: Plan, numbers: Arithmetic) -> Iterator[Problem]:
    least = numbers.batch_size * numbers.gpu_count
    if plan.arguments.get("dataloader_drop_last") and numbers.train_rows < least:
        what = (
            f"drops all {numbers.train_rows:,} train rows, which do not fill one batch of "
            f"{least:,}, so no step would be made"
        )
        way_out = "set it to false, or lower trainer.per_device_train_batch_size"
        yield Problem("trainer.extra.dataloader_drop_last", what, way_out)


def _no_eval_batch(plan: Plan, rows: int) -> Iterator[Problem]:
    size = int(plan.arguments.get("per_device_eval_batch_size", _DEFAULT_EVAL_BATCH_SIZE))
    least = size * max(1, plan.gpu_count) * plan.node_count
    evaluates = plan.arguments.get("eval_strategy", "no") != "no"
    if evaluates and plan.arguments.get("dataloader_drop_last") and 0 < rows < least:
        what = (
            f"drops all {rows:,} eval rows too, which do not fill one batch of {least:,}, so no "
            "evaluation would have a loss to choose by"
        )
        way_out = "set it to false, or lower trainer.per_device_eval_batch_size"
        yield Problem("trainer.extra.dataloader_drop_last", what, way_out)


def _packs_evaluation(plan: Plan) -> bool:
    packs = plan.arguments.get("eval_packing")
    return bool(plan.arguments.get("packing") if packs is None else packs)


def _no_full_step(plan: Plan, numbers: Arithmetic) -> Iterator[Problem]:
    """Refuse an accumulation that not even all epochs together could fill once."""
    per_epoch = math.ceil(numbers.train_rows / numbers.batch_size / numbers.gpu_count)
    epochs = numbers.total_steps
    is_by_epochs = int(plan.arguments.get("max_steps", -1)) <= 0 and numbers.steps_per_epoch == 1
    if epochs is None or not is_by_epochs or numbers.train_rows < _FEWEST_MEANT:
        return
    batches = per_epoch * epochs
    if batches < numbers.accumulation:
        what = (
            f"a step is to sum {numbers.accumulation:,} batches, and all epochs together have "
            f"{batches:,}; every epoch would be one step"
        )
        way_out = f"set trainer.gradient_accumulation_steps to at most {per_epoch:,}"
        yield Problem("trainer.gradient_accumulation_steps", what, way_out)


def _no_share(plan: Plan, rows: int, evaluation: int) -> Iterator[Problem]:
    share = plan.data.eval.fraction
    if share is None or evaluation != 1 or rows < _FEWEST_MEANT or round(rows * share) >= 1:
        return
    what = f"{share:g} of {rows:,} rows is less than one row, so one is left to choose by"
    yield Problem("data.eval.fraction", what, "set data.eval.fraction=0.1")
