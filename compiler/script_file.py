"""A pod script read back from its file, as text: nothing of it is imported or run.

A script holds its plan, its pins and its program, but not the pod it was compiled for: that is in
the manifest beside it. Without one a pod of the defaults stands in its place.
"""

import ast
import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podproof.compiler.bundle import OWN_PACKAGE
from podproof.compiler.errors import BadScript
from podproof.compiler.ir import PodScript, PodSpec, Run
from podproof.compiler.lower import pod_spec
from podproof.compiler.schema import GatesConfig, PodConfig
from podproof.compiler.script import MANIFEST_NAME, OWN_SCORER
from podproof.compiler.syntax import syntax_of
from podproof.runtime.errors import BadPlan, Problem
from podproof.runtime.plan import Plan, ScorerName, plan_from_json
from podproof.runtime.reader import read_section

_COMPILE = "compile it again with podproof compile"
_MODULE_HEAD = re.compile(r"# -{10} (\w+) -+")
# As PEP 723 defines the block; its regular expression is quoted.
_METADATA = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")


def read_script(path: Path) -> PodScript:
    """Return the script in a file; its sha256 is that of the manifest beside it, if there is one.

    So a text that is no longer the one on record is seen as such by the artefact gate. Raise
    BadScript for a file that cannot be read, is not Python, or holds no plan that can be read.
    """
    text = _text(path)
    try:
        tree = syntax_of(text).tree
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        raise BadScript(Problem(f"{path}:{line}", f"is not Python: {error}", _COMPILE)) from error
    plan = _plan(path, tree)
    modules = _modules(text)
    record = _record(path)
    run = Run(
        plan=plan,
        pod=record.pod or _default_pod(plan),
        requirements=_requirements(path, text),
        gates_level=GatesConfig().level.value,
        gates_skip=(),
        own_scorer=_own_scorer(text, tree, modules) if _has_own_scorer(plan) else None,
    )
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return PodScript(text, record.sha256 or digest, run, modules, knows_pod=record.pod is not None)


def metadata_blocks(text: str) -> list[dict[str, Any]]:
    """Return the content of each inline metadata block called script; raise ValueError for no TOML.

    >>> metadata_blocks('# /// script' + chr(10) + '# dependencies = []' + chr(10) + '# ///')
    [{'dependencies': []}]
    """
    blocks = [match for match in _METADATA.finditer(text) if match["type"] == "script"]
    contents = []
    for block in blocks:
        lines = block["content"].splitlines()
        bare = (line[2:] if line.startswith("# ") else line[1:] for line in lines)
        contents.append(tomllib.loads("\n".join(bare)))
    return contents


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise BadScript(Problem(str(path), what, "give the path of a pod_script.py")) from error
    except UnicodeDecodeError as error:
        raise BadScript(Problem(str(path), f"is not UTF-8: {error.reason}", _COMPILE)) from error


def _plan(path: Path, tree: ast.Module) -> Plan:
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PLAN_JSON"
    ]
    if len(values) != 1 or not isinstance(values[0], ast.Constant):
        what = f"is no pod script: it assigns {len(values)} plans as plain text, not one"
        raise BadScript(Problem(str(path), what, _COMPILE))
    try:
        return plan_from_json(str(values[0].value))
    except BadPlan as error:
        where = f"{path}:{values[0].lineno}"
        found = [Problem(where, f"{item.where} {item.what}", _COMPILE) for item in error.problems]
        raise BadScript(*found) from error


def _requirements(path: Path, text: str) -> tuple[str, ...]:
    try:
        blocks = metadata_blocks(text)
        (pins,) = (block["dependencies"] for block in blocks)
        return tuple(str(pin) for pin in pins)
    except (ValueError, KeyError, TypeError) as error:
        what = "has no one block of inline metadata that lists its dependencies"
        raise BadScript(Problem(f"{path}:1", what, _COMPILE)) from error


def _default_pod(plan: Plan) -> PodSpec:
    return pod_spec(PodConfig(gpu_count=plan.gpu_count, node_count=plan.node_count))


@dataclass(frozen=True)
class _Record:
    """What the manifest beside a script says of it; of the environment's values their digests."""

    sha256: str | None = None
    pod: PodSpec | None = None


def _record(path: Path) -> _Record:
    beside = path.with_name(MANIFEST_NAME)
    try:
        record = json.loads(beside.read_bytes())
    except FileNotFoundError:
        return _Record()
    except (OSError, ValueError, RecursionError) as error:
        raise BadScript(Problem(str(beside), f"is not JSON: {error}", _COMPILE)) from error
    if not isinstance(record, dict) or record.get("script") != path.name:
        return _Record()
    pod = _pod_on_record(record["pod"], beside) if "pod" in record else None
    return _Record(str(record.get("sha256")), pod)


def _pod_on_record(pod: object, beside: Path) -> PodSpec:
    problems: list[Problem] = []
    values = {**pod, "requirements": {}} if isinstance(pod, dict) else pod
    read = read_section(PodConfig, values, "pod", problems)
    if problems:
        found = [Problem(str(beside), f"{item.where} {item.what}", _COMPILE) for item in problems]
        raise BadScript(*found)
    return pod_spec(read)


def _modules(text: str) -> tuple[tuple[str, int, int], ...]:
    """Return where each module lies, by the lines that head them."""
    lines = text.split("\n")
    heads = [(number, match[1]) for number, line in enumerate(lines, 1) if (match := _head(line))]
    # None in a text whose lines end otherwise, with CR LF say: the artefact gate refuses that.
    ends = [number - 3 for number, _ in heads[1:]] + [len(lines) - 1 for _ in heads[:1]]
    return tuple((name, first, last) for (first, name), last in zip(heads, ends, strict=True))


def _head(line: str) -> re.Match[str] | None:
    return _MODULE_HEAD.fullmatch(line)


def _has_own_scorer(plan: Plan) -> bool:
    return plan.scorer.name is ScorerName.OWN


def _own_scorer(text: str, tree: ast.Module, modules: Sequence[tuple[str, int, int]]) -> str | None:
    """Return a module that would be bundled into the lines on which the user's scorer stands.

    The bundler took its imports to the top of the script and made comments of its docstring; here
    they are put back: every import there, and every module that stands before it.
    """
    names = [name for name, _, _ in modules]
    if OWN_SCORER not in names:
        return None
    _, first, last = modules[names.index(OWN_SCORER)]
    lines = text.split("\n")[first:last]
    blank = lines.index("") if "" in lines else 0
    docstring = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:blank])
    imports: list[ast.stmt] = [
        node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    imports += [
        ast.ImportFrom(OWN_PACKAGE + name, [ast.alias(name)], 0)
        for name in names[: names.index(OWN_SCORER)]
    ]
    head = [repr(docstring)] if docstring else []
    return "\n".join([*head, *map(ast.unparse, imports), *lines[blank:]])
