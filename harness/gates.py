"""The gates, in order: every one answers, all problems are in one report, exit 0 or 1.

Only `clear` makes a Cleared, and only `launch` takes one: nothing is launched that was not proven.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from podproof.compiler.errors import BadConfig, BadScript
from podproof.compiler.ir import PodScript
from podproof.compiler.plan_config import config_of, own_requirements, plan_problems
from podproof.harness.api import api_answer
from podproof.harness.artefact import artefact_problems
from podproof.harness.data import data_answer
from podproof.harness.memory import memory_answer
from podproof.harness.regression import regression_answer
from podproof.harness.size import size_answer
from podproof.harness.smoke import smoke_answer
from podproof.harness.trainer import trainer_answer
from podproof.harness.verdict import (
    Cleared,
    GateVerdict,
    Level,
    Outcome,
    Refused,
    Surroundings,
    warmed,
)
from podproof.runtime.errors import PodproofError, Problem

Problems = tuple[Problem, ...]
Answer = tuple[str, Problems] | tuple[str, Problems, Mapping[str, Any]]


@dataclass(frozen=True)
class Gate:
    """One question to a script: `ask` returns what was checked, the problems found, and details.

    `needs_sound_script` marks gates that run the script's code, and so must not be asked about
    one whose text was already refused. `after` names gates whose refusal this one could only
    repeat, or would break on.
    """

    gate_id: str
    level: Level
    ask: Callable[[PodScript, Surroundings], Answer]
    needs_sound_script: bool = False
    after: tuple[str, ...] = ("config",)


def _config(script: PodScript, _surroundings: Surroundings) -> Answer:
    """Ask of the plan what was asked of the config, since a script may come from anywhere."""
    problems = plan_problems(script)
    beside = () if problems else own_requirements(script.run, config_of(script.run, []))
    pins = [f"pins beside ours: {', '.join(beside)}"] if beside else []
    return "; ".join(["types, ranges and rules", *pins]), problems


def _artefact(script: PodScript, _surroundings: Surroundings) -> Answer:
    lines = script.text.count("\n")
    made_of = f"{lines:,} lines from {len(script.modules)} modules"
    return f"{made_of}, sha256 {script.sha256[:12]}", artefact_problems(script)


# Imported when they are asked: Hypothesis alone takes longer than most of the other gates.
def _scorer(script: PodScript, surroundings: Surroundings) -> Answer:
    from podproof.harness.proofs import scorer_answer

    return scorer_answer(script, surroundings)


def _dryrun(script: PodScript, surroundings: Surroundings) -> Answer:
    from podproof.harness.proofs import dryrun_answer

    return dryrun_answer(script, surroundings)


CONFIG_GATE = Gate("config", Level.STATIC, _config, after=())

# Those that are asked of a script in the surroundings; the first of all stands before them.
GATES: tuple[Gate, ...] = (
    Gate("artefact", Level.STATIC, _artefact, after=()),
    Gate("api", Level.STATIC, api_answer),
    Gate("size", Level.STATIC, size_answer),
    Gate("data", Level.STATIC, data_answer),
    Gate("memory", Level.STATIC, memory_answer),
    Gate("scorer", Level.FAST, _scorer, needs_sound_script=True),
    Gate("dryrun", Level.FAST, _dryrun, needs_sound_script=True),
    Gate("regression", Level.FAST, regression_answer, needs_sound_script=True),
    Gate("trainer", Level.FULL, trainer_answer, needs_sound_script=True, after=("config", "api")),
    Gate(
        "smoke",
        Level.FULL,
        smoke_answer,
        needs_sound_script=True,
        after=("config", "api", "data", "trainer"),
    ),
)

_ORDER = tuple(Level)


def clear(
    script: PodScript,
    surroundings: Surroundings,
    *,
    on_gate: Callable[[str], object] = str,
) -> Cleared | Refused:
    """Ask every gate of the run's level and return Cleared when none refuses.

    `on_gate` is told each gate's id before it is asked, for a progress display; its answer is
    ignored.
    """
    verdicts = [_verdict(CONFIG_GATE, script, surroundings, ())]
    with warmed(surroundings) as warm:
        there = replace(surroundings, warm=warm)
        for gate in GATES:
            on_gate(gate.gate_id)
            verdicts.append(_verdict(gate, script, there, verdicts))
    if any(verdict.outcome is Outcome.REFUSED for verdict in verdicts):
        return Refused(script, tuple(verdicts))
    return Cleared(script, tuple(verdicts))


def refused_config(error: BadConfig, seconds: float = 0.0) -> Refused:
    """Return the refusal of a config that never became a script."""
    return _refusal("config", error, seconds)


def refused_script(error: BadScript) -> Refused:
    """Return the refusal of a file that is no script of ours."""
    return _refusal("artefact", error, 0.0)


def verdict_of(gate_id: str, script: PodScript, surroundings: Surroundings) -> GateVerdict:
    """Ask one gate, and the artefact gate before it where it runs the script's code."""
    gate = next(gate for gate in (CONFIG_GATE, *GATES) if gate.gate_id == gate_id)
    before = [verdict_of("artefact", script, surroundings)] if gate.needs_sound_script else []
    return _verdict(gate, script, surroundings, before)


def _refusal(gate: str, error: PodproofError, seconds: float) -> Refused:
    count = len(error.problems)
    summary = f"{count} problem{'' if count == 1 else 's'}"
    problems = tuple(error.problems)
    return Refused(
        None, (GateVerdict(gate, Level.STATIC, Outcome.REFUSED, summary, problems, seconds),)
    )


def _verdict(
    gate: Gate, script: PodScript, surroundings: Surroundings, before: Sequence[GateVerdict]
) -> GateVerdict:
    reason = _reason_to_skip(gate, script, before)
    if reason is not None:
        return GateVerdict(gate.gate_id, gate.level, Outcome.SKIPPED, reason, (), 0.0)
    started = time.perf_counter()
    details: Mapping[str, Any] = {}
    try:
        summary, problems, *rest = gate.ask(script, surroundings)
        details = dict(*rest)
    # A gate that breaks on a script must not let it pass, nor may the script end podproof.
    except (Exception, SystemExit, GeneratorExit) as error:
        summary = "the gate itself failed"
        problems = (Problem(gate.gate_id, f"{type(error).__name__}: {error}"),)
    outcome = Outcome.REFUSED if problems else Outcome.PASSED
    seconds = time.perf_counter() - started
    return GateVerdict(gate.gate_id, gate.level, outcome, summary, problems, seconds, details)


def _reason_to_skip(gate: Gate, script: PodScript, before: Sequence[GateVerdict]) -> str | None:
    given = dict(script.run.gates_skip).get(gate.gate_id)
    if given is not None:
        return f"skipped by the config: {given}"
    if _ORDER.index(gate.level) > _ORDER.index(Level(script.run.gates_level)):
        return f"level {script.run.gates_level} leaves it out"
    refused = {verdict.gate for verdict in before if verdict.outcome is Outcome.REFUSED}
    if gate.needs_sound_script and "artefact" in refused:
        return "not run: the script's text was refused"
    before_it = [name for name in gate.after if name in refused]
    if before_it:
        return f"not run: {before_it[0]} refused already"
    return None
