"""The gates scorer and dryrun: what is asked of the code in a script, and the answers.

An answer depends on the code, the scorer's section of the plan and the method alone. So of many
scripts that differ in nothing else, as those of a sweep, only the first is asked.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from itertools import dropwhile
from pathlib import Path

from podproof.compiler.ir import PodScript
from podproof.harness.asking import HOW, asked_within
from podproof.harness.budget import OverBudgetError
from podproof.harness.dryrun import (
    FailingStream,
    failed_dry_runs,
    failing_stream,
    scenarios,
    stream_problem,
)
from podproof.harness.embedded import embedded
from podproof.harness.properties import PROPERTIES, broken_properties
from podproof.harness.verdict import Surroundings
from podproof.runtime.errors import Problem
from podproof.runtime.plan import MethodName, ScorerPlan, plan_to_json

# Examples of each property, and streams with faults: each gate takes about a second, of the 3 s
# the fast gates may take in all.
EXAMPLES = 60
STREAMS = 100

Answer = tuple[str, tuple[Problem, ...]]


@dataclass(frozen=True)
class Question:
    """All that the answers depend on; `text` is the script without its plan and its header."""

    text: str
    scorer: ScorerPlan
    method: MethodName
    budget_s: float


def scorer_answer(script: PodScript, surroundings: Surroundings) -> Answer:
    """Ask the embedded scorer for every property; return what was asked, and what is broken."""
    plan = script.run.plan.scorer
    asked = f"{len(PROPERTIES)} properties, {EXAMPLES} examples each, {HOW}"
    summary = f"{plan.name.value} for {plan.objective.value}: {asked}"
    try:
        return summary, _broken(question_of(script, surroundings))
    except OverBudgetError:
        return summary, (_too_slow("scorer", surroundings),)


def dryrun_answer(script: PodScript, surroundings: Surroundings) -> Answer:
    """Try the embedded callback on scenarios and streams; return what was tried, what failed."""
    method = script.run.plan.method
    summary = (
        f"{len(scenarios(method))} simulated {method.value} runs, each restarted; "
        f"{STREAMS} streams with faults, {HOW}"
    )
    try:
        problems, failing = _failed(question_of(script, surroundings))
    except OverBudgetError:
        return summary, (_too_slow("dryrun", surroundings),)
    drawn = () if failing is None else (stream_problem(failing, surroundings.home),)
    return summary, (*problems, *drawn)


def question_of(script: PodScript, surroundings: Surroundings) -> Question:
    """Return what is asked of a script; scripts of one question have one answer."""
    plan = script.run.plan
    without_plan = script.text.replace(plan_to_json(plan), "", 1)
    lines = dropwhile(lambda line: line.startswith("#"), without_plan.split("\n"))
    return Question("\n".join(lines), plan.scorer, plan.method, surroundings.budget_s)


@lru_cache(maxsize=32)
def _broken(question: Question) -> tuple[Problem, ...]:
    with embedded(question.text) as code, asked_within(question.budget_s), _unheard():
        return broken_properties(code, question.scorer, EXAMPLES)


@contextmanager
def _unheard() -> Iterator[None]:
    """Let nothing that a formula of the user's prints get between the lines of a report."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield


@lru_cache(maxsize=32)
def _failed(question: Question) -> tuple[tuple[Problem, ...], FailingStream | None]:
    with embedded(question.text) as code, asked_within(question.budget_s), _unheard():
        return failed_dry_runs(code, question), failing_stream(code, question, STREAMS)


def _too_slow(gate: str, surroundings: Surroundings) -> Problem:
    return Problem(
        f"{gate}.budget",
        f"{surroundings.budget_s:g} s of processor time were not enough for all examples",
        f"if it hangs, mend the formula; on a slow machine say so in gates.skip.{gate}='...'",
    )
