"""A config or a script put to the gates, and what they said, small enough to hand around."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from podproof.compiler.credentials import without_secrets
from podproof.compiler.errors import BadConfig, BadScript
from podproof.compiler.ir import PodScript, Run
from podproof.compiler.lower import lower
from podproof.compiler.places import LocatedProblem
from podproof.compiler.read import Request, locate, read
from podproof.compiler.script import compile_run
from podproof.compiler.script_file import read_script
from podproof.harness.gates import clear, refused_config, refused_script
from podproof.harness.surroundings import surroundings
from podproof.harness.verdict import (
    Cleared,
    GateVerdict,
    Level,
    Outcome,
    Refused,
    Surroundings,
)
from podproof.runtime.errors import Problem

EXIT_CLEARED, EXIT_REFUSED, EXIT_NO_SCRIPT = 0, 1, 2

_OnGate = Callable[[str], object]


@dataclass(frozen=True)
class Judgement:
    """What the gates said of one config or script.

    `subject` is what a person calls it: an experiment, overrides, the path of a script. `file` is
    where a problem belongs that names no place of its own. `name` and `sha256` are those of the
    script, None when there is none.
    """

    subject: str
    file: str
    name: str | None
    sha256: str | None
    is_cleared: bool
    verdicts: tuple[GateVerdict, ...]

    @property
    def exit_code(self) -> int:
        """Return 0 for cleared, 1 for refused, 2 for what never became a script."""
        if self.is_cleared:
            return EXIT_CLEARED
        return EXIT_NO_SCRIPT if self.sha256 is None else EXIT_REFUSED

    @property
    def refusing(self) -> tuple[str, ...]:
        """Return the gates that refused, in order."""
        return tuple(item.gate for item in self.verdicts if item.outcome is Outcome.REFUSED)

    @property
    def seconds(self) -> float:
        """Return how long the gates took."""
        return sum(verdict.seconds for verdict in self.verdicts)


def verify(
    run: Run, within: Surroundings | None = None, *, on_gate: _OnGate = str
) -> Cleared | Refused:
    """Compile a run and ask every gate of its level; return Cleared, or Refused with all problems.

    `within` is what the gates may look at: by default the data files below this folder and what
    podproof remembers at home. `on_gate` is told each gate's id before it is asked. Raise
    NotBundleable when the runtime itself cannot become one file.
    """
    return clear(compile_run(run), within or surroundings(), on_gate=on_gate)


def verify_request(
    request: Request, within: Surroundings, *, on_gate: _OnGate = str
) -> Cleared | Refused:
    """Read, compile and ask; a config that cannot be read is refused by the config gate.

    Problems about a key carry the file and line, or the override, that set it.
    """
    started = time.perf_counter()
    try:
        run = lower(read(request))
    except BadConfig as error:
        return refused_config(error, time.perf_counter() - started)
    result = verify(run, within, on_gate=on_gate)
    return result if isinstance(result, Cleared) else _with_places(result, request)


def verify_script(
    path: Path, level: Level, within: Surroundings, *, on_gate: _OnGate = str
) -> Cleared | Refused:
    """Ask the gates about a script file; one that is not ours is refused by the artefact gate.

    Nothing of it is run unless its text is the one that its plan compiles to.
    """
    try:
        script = read_script(path)
    except BadScript as error:
        return refused_script(error)
    at_level = replace(script, run=replace(script.run, gates_level=level.value))
    return clear(at_level, within, on_gate=on_gate)


def judgement(subject: str, file: str, result: Cleared | Refused) -> Judgement:
    """Return a result without its script."""
    script: PodScript | None = result.script
    return Judgement(
        subject=subject,
        file=file,
        name=None if script is None else script.run.plan.name,
        sha256=None if script is None else script.sha256,
        is_cleared=isinstance(result, Cleared),
        verdicts=result.verdicts,
    )


def placed(problems: Sequence[Problem], request: Request) -> tuple[Problem, ...]:
    """Return the problems with the file and line, or the override, of each that is about a key.

    What looks like a credential in an override is struck out.
    """
    return tuple(
        replace(item, override_text=without_secrets(item.override_text))
        if isinstance(item, LocatedProblem)
        else item
        for item in locate(request, problems)
    )


def _with_places(result: Refused, request: Request) -> Refused:
    found = [item for verdict in result.verdicts for item in verdict.problems]
    rest = iter(placed(found, request))
    verdicts = tuple(
        replace(verdict, problems=tuple(next(rest) for _ in verdict.problems))
        for verdict in result.verdicts
    )
    return Refused(result.script, verdicts)
