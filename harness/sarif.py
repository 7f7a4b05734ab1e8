"""Judgements as SARIF 2.1.0, which code scanners show beside the lines they are about."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from podproof.compiler.places import LocatedProblem, place_of
from podproof.compiler.schema import GATE_IDS
from podproof.harness.judgement import Judgement
from podproof.harness.questions import QUESTIONS, page_of
from podproof.harness.verdict import GateVerdict
from podproof.runtime.errors import Problem

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)


def sarif(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Return the log: one rule for each gate, one result of level error for each problem.

    A problem that names no file and line belongs to the first line of its experiment.
    """
    gates = list(GATE_IDS)
    results = [
        _result(item, verdict, problem, gates.index(verdict.gate))
        for item in judgements
        for verdict in item.verdicts
        for problem in verdict.problems
    ]
    driver = {"name": "podproof", "version": version("podproof"), "rules": [*map(_rule, gates)]}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(gate: str) -> dict[str, Any]:
    return {
        "id": gate,
        "name": gate,
        "shortDescription": {"text": QUESTIONS[gate]},
        # No helpUri: it would have to be absolute.
        "help": {"text": f"{page_of(gate)} says what it asks, and the ways out."},
        "defaultConfiguration": {"level": "error"},
    }


def _result(
    item: Judgement, verdict: GateVerdict, problem: Problem, rule_index: int
) -> dict[str, Any]:
    place = f" ({problem.place})" if isinstance(problem, LocatedProblem) else ""
    way_out = f" Way out: {problem.way_out}." if problem.way_out else ""
    return {
        "ruleId": verdict.gate,
        "ruleIndex": rule_index,
        "level": "error",
        "message": {"text": f"{item.subject}: {problem.where}: {problem.what}{place}.{way_out}"},
        "locations": [{"physicalLocation": _location(item, problem)}],
    }


def _location(item: Judgement, problem: Problem) -> dict[str, Any]:
    file, line = place_of(problem)
    if file is None or file == "pod_script.py" or Path(file).is_absolute():
        # A script is made and not kept, and what ships with podproof is not in the user's folder:
        # its experiment is what a person can change, and the message says the rest.
        file, line = item.file, 1
    return {
        "artifactLocation": {"uri": _uri(file)},
        "region": {"startLine": line or 1},
    }


def _uri(file: str) -> str:
    path = Path(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
