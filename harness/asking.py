"""How Hypothesis is asked: the same examples on every machine, within a budget of time.

The seed and the number of examples are fixed, so a verdict depends on the script alone and on the
version of Hypothesis. A machine that is too slow for all of them within the budget gets a refusal
that says so, never a pass for fewer.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, seed, settings

from podproof.harness.budget import within

# The seed of every draw. Another one asks other examples; none is better than another.
SEED = 0

HOW = f"seed {SEED}, Hypothesis {hypothesis.__version__}"


_IS_SHRINKING = ContextVar("is_shrinking", default=True)


def attack(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the decorator that lets Hypothesis try a check, with the same examples everywhere."""
    phases = (Phase.explicit, Phase.generate, Phase.shrink)
    chosen = settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=phases if _IS_SHRINKING.get() else phases[:2],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    return lambda check: seed(SEED)(chosen(check))


@contextmanager
def asked_within(seconds: float, *, is_shrinking: bool = True) -> Iterator[None]:
    """Run the body with nothing but our own examples; raise OverBudgetError when it takes longer.

    `seconds` are those of the processor. Without `is_shrinking` the first counterexample is as good
    as any.
    """
    before = _IS_SHRINKING.set(is_shrinking)
    try:
        with _no_foreign_constants(), within(seconds):
            yield
    finally:
        _IS_SHRINKING.reset(before)


@contextmanager
def _no_foreign_constants() -> Iterator[None]:
    """Keep Hypothesis from trying numbers that it finds in the source of loaded modules.

    What is loaded differs between the command line, a test and an installed wheel, and so would
    the examples. There is no setting for it.
    """
    providers: Any = importlib.import_module("hypothesis.internal.conjecture.providers")
    looked_up = getattr(providers, "_get_local_constants", None)
    if looked_up is None:  # an older Hypothesis, which does not look there
        yield
        return
    providers._get_local_constants = providers.Constants  # noqa: SLF001 - see above
    providers.CONSTANTS_CACHE.cache.clear()
    try:
        yield
    finally:
        providers._get_local_constants = looked_up  # noqa: SLF001
        providers.CONSTANTS_CACHE.cache.clear()
