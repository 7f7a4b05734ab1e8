"""Does a run last as long as its schedule thinks, now that its rows are counted."""

from collections.abc import Iterator

from podproof.compiler.schedule_rules import FEWEST_STEPS
from podproof.compiler.schema import TrainerConfig
from podproof.runtime.arithmetic import Arithmetic
from podproof.runtime.errors import Problem
from podproof.runtime.plan import Plan


def run_length_problems(plan: Plan, numbers: Arithmetic) -> Iterator[Problem]:
    """Yield a problem for evaluations that never come, and for a rate that is never reached.

    Where packing hides the number of steps nothing is said, nor of a run so short that it is a try.
    """
    if numbers.total_steps is not None and numbers.total_steps >= FEWEST_STEPS:
        yield from _beyond_the_end(plan, numbers, numbers.total_steps)


def _beyond_the_end(plan: Plan, numbers: Arithmetic, total: int) -> Iterator[Problem]:
    arguments = plan.arguments
    lasting = f"and the run has {total}: {'; '.join(numbers.describe()[:2])}"
    strategy, every = arguments.get("eval_strategy", "no"), arguments.get("eval_steps")
    # What podproof sets by itself is no mistake of anybody's: the run is evaluated at its end.
    is_chosen = every != TrainerConfig().eval_steps
    if strategy == "steps" and is_chosen and every is not None and every > total:
        what = f"evaluates every {every:g} steps, {lasting}"
        yield Problem("trainer.eval_steps", what, f"set trainer.eval_steps={max(1, total // 4)}")
    delay = float(arguments.get("eval_delay") or 0)
    # With evaluations by epoch the delay is in epochs.
    ends = total if strategy == "steps" else total / (numbers.steps_per_epoch or total)
    if strategy != "no" and delay >= ends:
        what = f"delays every evaluation until {delay:g}, {lasting}"
        yield Problem("trainer.extra.eval_delay", what, "take it out")
    warmup = float(arguments.get("warmup_steps", 0))
    if warmup >= max(1, total):
        what = f"warms up for {warmup:g} steps, {lasting}"
        yield Problem("trainer.warmup_steps", what, "set trainer.warmup_steps=0.03 (a share)")
