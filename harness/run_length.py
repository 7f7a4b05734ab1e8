"""Does a run last as long as its schedule thinks, now that its rows are counted."""

from collections.abc import Iterator

from podproof.runtime.arithmetic import Arithmetic
from podproof.runtime.errors import Problem
from podproof.runtime.plan import Plan


def run_length_problems(plan: Plan, numbers: Arithmetic) -> Iterator[Problem]:
    """Yield a problem for evaluations that never come, and for a rate that is never reached.

    Where packing hides the number of steps nothing is said.
    """
    total, arguments = numbers.total_steps, plan.arguments
    if total is None:
        return
    lasting = f"and the run has {total}: {'; '.join(numbers.describe()[:2])}"
    every = arguments.get("eval_steps")
    if arguments.get("eval_strategy") == "steps" and every is not None and every > total:
        what = f"evaluates every {every:g} steps, {lasting}"
        yield Problem("trainer.eval_steps", what, f"set trainer.eval_steps={max(1, total // 4)}")
    warmup = float(arguments.get("warmup_steps", 0))
    if warmup >= max(1, total):
        what = f"warms up for {warmup:g} steps, {lasting}"
        yield Problem("trainer.warmup_steps", what, "set trainer.warmup_steps=0.03 (a share)")
