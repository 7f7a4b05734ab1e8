"""One side of a diff: a script's text, and what is known of the plan, the pins and the pod."""

import ast
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from podproof.compiler.anatomy import parsed
from podproof.compiler.errors import BadScript
from podproof.compiler.ir import PodScript, PodSpec, Run
from podproof.compiler.script import manifest
from podproof.runtime.errors import PodproofError, Problem
from podproof.runtime.plan import Plan, plan_from_json
from podproof.runtime.reader import read_section

# PEP 723's own regular expression.
_METADATA = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")


@dataclass(frozen=True)
class Side:
    """A script to compare.

    `plan` is the plan as plain JSON, so that one of another podproof can be compared too; None for
    a script that is not ours. `requirements` is None where the script names none. `pod` and
    `gates` come from the manifest beside the script, and are None without one.
    """

    label: str
    text: str
    plan: Mapping[str, Any] | None
    requirements: tuple[str, ...] | None
    requires_python: str | None
    pod: Mapping[str, Any] | None
    gates: Mapping[str, Any] | None

    @property
    def typed_plan(self) -> Plan | None:
        """Return the plan as this podproof reads it; None when it cannot."""
        if self.plan is None:
            return None
        try:
            return plan_from_json(json.dumps(self.plan))
        except PodproofError:
            return None

    @property
    def run(self) -> Run | None:
        """Return the Run as far as it is known, for what is worked out from one; None otherwise.

        Of the pod's environment it has names only.
        """
        plan = self.typed_plan
        if plan is None or self.pod is None:
            return None
        problems: list[Problem] = []
        named: dict[str, list[str]] = {"env": [], "secrets": []}
        pod = read_section(PodSpec, {**self.pod, **named}, "pod", problems)
        gates = self.gates or {}
        if problems:
            return None
        return Run(
            plan=plan,
            pod=replace(pod, env=_pairs(self.pod, "env"), secrets=_pairs(self.pod, "secrets")),
            requirements=self.requirements or (),
            gates_level=str(gates.get("level", "")),
            gates_skip=_pairs(gates, "skip"),
        )


def _pairs(values: Mapping[str, Any], name: str) -> tuple[tuple[str, str], ...]:
    return tuple((str(key), str(item)) for key, item in dict(values.get(name) or {}).items())


def side_of(script: PodScript, label: str) -> Side:
    """Return the side of a script that was just compiled."""
    return side_of_text(script.text, label, manifest(script))


def side_of_text(text: str, label: str, beside: Mapping[str, Any] | None = None) -> Side:
    """Return the side of a script's text, with the manifest that stands beside it, if any.

    Raise BadScript when the text is not Python.
    """
    metadata = _metadata(text)
    found = beside or {}
    pins = metadata.get("dependencies")
    return Side(
        label=label,
        text=text,
        plan=_plan(text),
        requirements=None if pins is None else tuple(map(str, pins)),
        requires_python=metadata.get("requires-python"),
        pod=_mapping(found.get("pod")),
        gates=_mapping(found.get("gates")),
    )


def _mapping(value: object) -> Mapping[str, Any] | None:
    return value if isinstance(value, Mapping) else None


def _plan(text: str) -> dict[str, Any] | None:
    for node in parsed(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PLAN_JSON":
            try:
                plan = json.loads(ast.literal_eval(node.value))
            except (ValueError, TypeError, SyntaxError):
                return None
            return plan if isinstance(plan, dict) else None
    return None


def _metadata(text: str) -> dict[str, Any]:
    block = next((found for found in _METADATA.finditer(text) if found["type"] == "script"), None)
    if block is None:
        return {}
    lines = block["content"].splitlines()
    content = "\n".join(line[2:] if line.startswith("# ") else line[1:] for line in lines)
    try:
        return tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise BadScript(f"its metadata block is not TOML: {error}") from error
