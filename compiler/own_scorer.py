"""A scorer in a file of the user's: read, checked before it rides, put in its place in the script.

The file takes the place of runtime/own_scorer.py, so it keeps the rules of a runtime module
(compiler/bundle.py), and two more: it defines the functions that module defines, and it imports
nothing that could tell one machine or moment from another.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from podproof.compiler.bundle import bundle
from podproof.compiler.errors import NotBundleable
from podproof.compiler.formula import differing
from podproof.compiler.script import ENTRY, OWN_SCORER, sources_with
from podproof.runtime.errors import Problem
from podproof.runtime.plan import ScorerName, ScorerPlan

# The functions a file must define, and how many arguments each is called with, by position.
FUNCTIONS: Mapping[str, int] = {"own_components": 3, "own_bound": 1}

# What a formula may use: nothing of it reads a clock, a random number, a file or the machine.
IMPORTABLE = frozenset(
    {
        "bisect",
        "collections",
        "collections.abc",
        "dataclasses",
        "enum",
        "fractions",
        "functools",
        "heapq",
        "itertools",
        "math",
        "operator",
        "podproof.runtime.plan",
        "podproof.runtime.readings",
        "podproof.runtime.scores",
        "statistics",
        "typing",
    }
)
# `hash` of text and `id` differ from process to process, and so from rank to rank.
FORBIDDEN_NAMES = frozenset(
    {"__import__", "breakpoint", "compile", "eval", "exec", "hash", "id", "input", "open"}
    | {"BaseException", "GeneratorExit", "KeyboardInterrupt", "SystemExit", "exit", "quit"}
)

_KEY = "scorer.file"
_EXAMPLE = "docs/how-to/own-scorer.md has a whole one"


def own_scorer_text(scorer: ScorerPlan) -> str | None:
    """Return the text of the user's scorer; None for the scorers that ship.

    Call it for a scorer without `own_scorer_problems` only.
    """
    return _read(scorer.file) if scorer.file is not None else None


def own_scorer_problems(scorer: ScorerPlan) -> Iterator[Problem]:
    """Yield everything that keeps the user's file from riding in a script."""
    if scorer.name is not ScorerName.OWN:
        if scorer.file is not None:
            what = f"is not used by scorer.name={scorer.name.value}"
            yield Problem(_KEY, what, "set scorer.name=own, or take it out")
        return
    if not scorer.file:
        yield Problem(_KEY, "needs a value with scorer.name=own", f"name your file; {_EXAMPLE}")
        return
    try:
        text = _read(scorer.file)
        tree = ast.parse(text)
    except OSError as error:
        what = f"{scorer.file!r} cannot be read: {error.strerror}"
        yield Problem(_KEY, what, "the path is looked up from where podproof runs")
    except SyntaxError as error:
        yield Problem(_KEY, f"{scorer.file}:{error.lineno} is not Python: {error.msg}", "mend it")
    except ValueError as error:  # a NUL in the path or the text, bytes that are no UTF-8
        way_out = "name a Python file in UTF-8"
        yield Problem(_KEY, f"{scorer.file!r} is no text of Python: {error}", way_out)
    else:
        yield from _missing_functions(tree, scorer.file)
        yield from _foreign_imports(tree, scorer.file)
        yield from formula_problems(tree, scorer.file)
        yield from _broken_bundle_rules(text, scorer.file)


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _missing_functions(tree: ast.Module, path: str) -> Iterator[Problem]:
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for name, count in FUNCTIONS.items():
        node = defined.get(name)
        if node is None:
            yield Problem(_KEY, f"{path} defines no function {name}", _EXAMPLE)
            continue
        arguments = node.args
        given = len(arguments.posonlyargs) + len(arguments.args)
        needed = given - len(arguments.defaults)
        most = given if arguments.vararg is None else max(given, count)
        missing = [item for item in arguments.kw_defaults if item is None]
        if not needed <= count <= most or missing:
            what = f"{path}:{node.lineno} {name} is called with {count} arguments, by position"
            yield Problem(_KEY, what, _EXAMPLE)


def _foreign_imports(tree: ast.Module, path: str) -> Iterator[Problem]:
    for node in ast.walk(tree):
        for name in _imported_modules(node):
            if name not in IMPORTABLE:
                what = f"{path}:{getattr(node, 'lineno', 1)} imports {name}"
                yield Problem(_KEY, what, _LOGS_ALONE)


def formula_problems(tree: ast.Module, path: str) -> Iterator[Problem]:
    """Yield what could give another score to another call or process, by line of `path`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in FORBIDDEN_NAMES:
            yield Problem(_KEY, f"{path}:{node.lineno} uses {node.id}", _LOGS_ALONE)
    for place in differing(tree):
        yield Problem(_KEY, f"{path}:{place.line} {place.what}", place.way_out)


_LOGS_ALONE = "a score depends on the logs alone; docs/how-to/own-scorer.md lists what may be used"


def _imported_modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or "."]
    return []


def _broken_bundle_rules(text: str, path: str) -> Iterator[Problem]:
    """Bundle it with every module there is, so that a name any of them has is found too."""
    try:
        bundle(sources_with(text), ENTRY, preamble="#", constants={"PLAN_JSON": "{}"})
    except NotBundleable as error:
        for problem in error.problems:
            place = problem.where.replace(f"{OWN_SCORER}.py", path)
            what = problem.what.replace(f"module {OWN_SCORER}", path)
            yield Problem(_KEY, f"{place} {what}", problem.way_out or _EXAMPLE)
