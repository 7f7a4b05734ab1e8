"""What two configs mean for a run: batch, steps, tokens, learning rate, parameters, price."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from podproof.compiler.anatomy import anatomy_of
from podproof.compiler.architecture import NotEstimated
from podproof.compiler.changes import Quantity
from podproof.compiler.model_config import architecture_at_hand
from podproof.compiler.plan_changes import SELECTION_ARGUMENTS, written_values
from podproof.compiler.schedule import learning_rates
from podproof.compiler.sides import Side
from podproof.compiler.trainable import trainable_parameters
from podproof.runtime.arithmetic import Arithmetic, arithmetic
from podproof.runtime.plan import MethodName, Plan

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Expected:
    """What a run is expected to take, in words with units; None for what nobody estimated."""

    trainable_parameters: str | None = None
    memory: str | None = None
    hours: str | None = None
    dollars: str | None = None


@dataclass(frozen=True)
class Known:
    """What is known of one side beside its text: training rows at hand, and what is expected."""

    train_rows: int | None = None
    expected: Expected = Expected()


def quantities(
    before: Side, after: Side, known_before: Known, known_after: Known
) -> tuple[Quantity, ...]:
    """Return what each side means for a run, in words; only what can be told of both sides."""
    one, other = _meaning(before, known_before), _meaning(after, known_after)
    return tuple(
        Quantity(name, one.get(name, UNKNOWN), other.get(name, UNKNOWN))
        for name in {**one, **other}
    )


def _meaning(side: Side, known: Known) -> dict[str, str]:
    plan = side.typed_plan
    if plan is None:
        return _written_meaning(written_values(anatomy_of(side.text)))
    sums = arithmetic(plan, 1 if known.train_rows is None else known.train_rows)
    expected = known.expected
    meaning = {
        "effective batch": f"{sums.sequences_per_step} sequences per step",
        "steps": _steps(plan, sums, known.train_rows),
        "tokens": _tokens(plan, sums, known.train_rows),
        "learning rate": _rates_in_words(plan.arguments, _total(plan, sums, known.train_rows)),
        "trainable parameters": expected.trainable_parameters or _parameters(plan),
        "selection rule": _selection(plan),
    }
    told = {"memory": expected.memory, "hours": expected.hours, "dollars": expected.dollars}
    return meaning | {name: words for name, words in told.items() if words is not None}


def _total(plan: Plan, sums: Arithmetic, rows: int | None) -> int | None:
    is_fixed = int(plan.arguments.get("max_steps", -1)) > 0
    return sums.total_steps if is_fixed or rows is not None else None


def _steps(plan: Plan, sums: Arithmetic, rows: int | None) -> str:
    total = _total(plan, sums, rows)
    if total is not None:
        return f"{total:,}"
    epochs = plan.arguments.get("num_train_epochs", 3.0)
    if plan.arguments.get("packing"):
        return f"{epochs:g} epochs of packed rows / {sums.sequences_per_step}"
    return f"{epochs:g} epochs of rows / {sums.sequences_per_step}"


def _tokens(plan: Plan, sums: Arithmetic, rows: int | None) -> str:
    """Return the most tokens a step can hold; a preference pair is two sequences."""
    length = plan.arguments.get("max_length")
    if length is None:
        return "rows at their own length"
    sides = 1 if plan.method is MethodName.SFT else 2
    per_step = sums.sequences_per_step * int(length) * sides
    total = _total(plan, sums, rows)
    in_all = "" if total is None else f", {per_step * total:,} in all"
    return f"at most {per_step:,} per step{in_all}"


def _rates_in_words(arguments: Mapping[str, Any], total: int | None) -> str:
    rates = learning_rates(arguments, total)
    name = arguments.get("lr_scheduler_type", "linear")
    if rates is None:
        peak = float(arguments.get("learning_rate", 0.0))
        return f"{name}, at most {peak:.3g}"
    points = ", ".join(f"{rate:.3g} at {at}" for at, rate in rates.items() if at != "peak")
    return f"{name}, at most {rates['peak']:.3g}: {points}"


def _parameters(plan: Plan) -> str:
    architecture = architecture_at_hand(plan.model)
    if isinstance(architecture, NotEstimated):
        return UNKNOWN
    return f"{trainable_parameters(architecture, plan.adapter):,}"


def _selection(plan: Plan) -> str:
    metric = plan.arguments.get("metric_for_best_model")
    if metric is None or not plan.arguments.get("load_best_model_at_end"):
        return "the last checkpoint"
    end = "highest" if plan.arguments.get("greater_is_better") else "lowest"
    scorer = f"{plan.scorer.name.value} for {plan.scorer.objective.value}"
    return f"the checkpoint with the {end} {metric}, scorer {scorer}"


def _written_meaning(written: Mapping[str, Any]) -> dict[str, str]:
    """Return what the arguments of a script without a plan mean, as far as they are written out."""
    selection = [f"{key}={written[key]}" for key in sorted(SELECTION_ARGUMENTS & written.keys())]
    meaning = {"selection rule": ", ".join(selection) or UNKNOWN}
    batch = written.get("per_device_train_batch_size")
    accumulation = written.get("gradient_accumulation_steps", 1)
    if isinstance(batch, int) and isinstance(accumulation, int):
        meaning["effective batch"] = f"{batch * accumulation} sequences per step and GPU"
    if isinstance(written.get("learning_rate"), float):
        meaning["learning rate"] = _rates_in_words(written, None)
    return meaning
