"""Put a mutant to the gates scorer and dryrun, with the examples they use, until one refuses."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from podproof.harness.asking import asked_within
from podproof.harness.budget import OverBudgetError
from podproof.harness.dryrun import failed_dry_runs, failing_stream
from podproof.harness.proofs import EXAMPLES, STREAMS
from podproof.harness.properties import PROPERTIES, broken_properties
from tests.mutants.operators import Mutant
from tests.mutants.scripts import MutableScript, mutable

# The scripts a mutant is put into, one after the other, until its gates refuse one.
CONFIGS = (("experiment=tiny_dpo",),)

# Processor time of one question; the gates themselves allow more.
QUESTION_S = 10.0

EXPLAINED: dict[str, str] = json.loads(
    (Path(__file__).parent / "survivors.json").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Judged:
    """A mutant's module and name, and what refused it; None: it survived every question."""

    module: str
    name: str
    killed_by: str | None

    @property
    def explanation(self) -> str | None:
        """Return why it survives, if that is known."""
        return EXPLAINED.get(self.name)


@cache
def scripts() -> tuple[MutableScript, ...]:
    """Return the scripts of CONFIGS, compiled once in each process."""
    return tuple(mutable(*overrides) for overrides in CONFIGS)


@cache
def all_mutants() -> tuple[Mutant, ...]:
    """Return every mutant, in the order of the modules."""
    return tuple(scripts()[0].mutants())


def judge(mutant: Mutant) -> Judged:
    """Return what refuses the mutant first; a mutant that hangs is refused by the budget."""
    return Judged(mutant.module, mutant.name, killer_of(mutant))


def killer_of(mutant: Mutant | None) -> str | None:
    """Return the name of the first problem that a gate has with the script; None without any."""
    for script in scripts():
        found = next(_problems(script, mutant), None)
        if found is not None:
            return found
    return None


def _problems(script: MutableScript, mutant: Mutant | None) -> Iterator[str]:
    plan = script.script.run.plan
    try:
        with script.loaded(mutant) as code:
            module = None if mutant is None else mutant.module
            for ask in _questions(code, plan, module):
                with asked_within(QUESTION_S, is_shrinking=False):
                    yield from ask()
    except OverBudgetError:
        yield "budget"
    except Exception as error:  # the gate itself would refuse
        yield f"{type(error).__name__}"


def _questions(code: Any, plan: Any, module: str | None) -> Iterator[Callable[[], Iterator[str]]]:
    """Yield what the two gates ask, what kills most in the least time first.

    The properties of the scorer call nothing of the callback, and are not asked about a slip in it.
    """

    def law(name: str) -> Callable[[], Iterator[str]]:
        laws = {name: PROPERTIES[name]}
        return lambda: (
            problem.where for problem in broken_properties(code, plan.scorer, EXAMPLES, laws)
        )

    def streams() -> Iterator[str]:
        failing = failing_stream(code, plan, STREAMS)
        yield from [] if failing is None else [f"dryrun.{failing.violation.invariant}"]

    def dry_runs() -> Iterator[str]:
        return (problem.where for problem in failed_dry_runs(code, plan))

    if module in {"hooks", "callback", "evaluation_body"}:
        yield from (streams, dry_runs)
        return
    yield from (law("documented"), streams, dry_runs)
    yield from (law(name) for name in PROPERTIES if name != "documented")
