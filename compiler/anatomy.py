"""What a script is made of, read from its syntax tree; nothing of it is imported or run.

It works on any Python script, one of ours or not: ours also tells the module of each definition.
"""

import ast
import copy
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

from podproof.compiler.errors import BadScript
from podproof.runtime.errors import Problem

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

# The line that bundle.py puts before each module.
_MODULE_LINE = re.compile(r"# -{10} (\w+) -+")

TOP_LEVEL = "(top level)"


@dataclass(frozen=True)
class Definition:
    """A function or method, or the statements at the top level of a script.

    `name` is qualified (`PodCallback.on_log`), `module` is empty in a script that is not ours.
    `signature` is its parameters as written, `entries` its decorators and statements in order (see
    `entries_of`), without docstring. `nodes` are the statements themselves.
    """

    name: str
    module: str
    signature: str
    entries: tuple[str, ...]
    lines: int
    arguments: ast.arguments | None = field(compare=False, repr=False)
    nodes: tuple[ast.stmt, ...] = field(compare=False, repr=False)

    def is_same_as(self, other: "Definition") -> bool:
        """Tell whether both do the same when called the same, as far as their text says."""
        return (self.signature, self.entries) == (other.signature, other.entries)


@dataclass(frozen=True)
class Parameter:
    """One parameter; a star stands before the name of one that takes any number of values."""

    name: str
    has_default: bool
    is_positional: bool


@dataclass(frozen=True)
class ClassAnatomy:
    """A class: its bases, its fields and constants as written, its methods by bare name."""

    name: str
    module: str
    bases: tuple[str, ...]
    fields: Mapping[str, str]
    methods: Mapping[str, Definition]

    @property
    def is_callback(self) -> bool:
        """Tell whether a trainer calls it: by its base, or by a hook of its own."""
        has_base = any(base.endswith(("Callback", "Hooks")) for base in self.bases)
        return has_base or any(name in HOOKS for name in self.methods)


@dataclass(frozen=True)
class Anatomy:
    """A script: functions and classes by name, constants, imported roots, modules, and its tree.

    `modules` is empty for a script that is not ours.
    """

    functions: Mapping[str, Definition]
    classes: Mapping[str, ClassAnatomy]
    constants: Mapping[str, str]
    imports: frozenset[str]
    modules: frozenset[str]
    tree: ast.Module = field(compare=False, repr=False)

    @property
    def definitions(self) -> dict[str, Definition]:
        """Return every function and method by its qualified name."""
        methods = (item for kind in self.classes.values() for item in kind.methods.values())
        return {**self.functions, **{method.name: method for method in methods}}

    @property
    def names(self) -> frozenset[str]:
        """Return the name of every function and class."""
        return frozenset({*self.functions, *self.classes} - {TOP_LEVEL})

    def names_in(self, module: str) -> frozenset[str]:
        """Return the names of the functions and classes of one module."""
        both: tuple[Definition | ClassAnatomy, ...] = (
            *self.functions.values(),
            *self.classes.values(),
        )
        return frozenset(item.name for item in both if item.module == module)


# The hooks of transformers.TrainerCallback.
HOOKS = frozenset(
    {
        *("on_init_end", "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end"),
        *("on_step_begin", "on_pre_optimizer_step", "on_optimizer_step", "on_substep_end"),
        *("on_step_end", "on_evaluate", "on_predict", "on_save", "on_log", "on_prediction_step"),
    }
)

# What a plan decides stands in these, and is compared as a plan.
_PLAN_CONSTANTS = {"PLAN_JSON", "PARTS"}


@lru_cache(maxsize=16)
def anatomy_of(text: str, without: frozenset[str] = frozenset()) -> Anatomy:
    """Return the anatomy of a script, some of its modules left out.

    Raise BadScript when it is not Python.
    """
    places = _module_lines(text)
    body = [node for node in parsed(text).body if _module_at(places, node.lineno) not in without]
    tree = ast.Module(body, [])
    found = list(_statements(body))
    functions = {
        node.name: _definition(node, node.name, _module_at(places, node.lineno))
        for node in found
        if isinstance(node, Function)
    }
    loose = tuple(_loose_statements(tree))
    if loose:
        functions[TOP_LEVEL] = Definition(
            TOP_LEVEL, "", "", entries_of(loose), _line_count(loose), None, loose
        )
    classes = {
        node.name: _class(node, _module_at(places, node.lineno))
        for node in found
        if isinstance(node, ast.ClassDef)
    }
    return Anatomy(
        functions,
        classes,
        constants=dict(_constants(tree)),
        imports=frozenset(_roots(tree)),
        modules=frozenset(name for _, name in places) - without,
        tree=tree,
    )


def sections_of(text: str) -> dict[str, str]:
    """Return the text of each module of a script of ours; empty for any other script."""
    lines = text.split("\n")
    places = _module_lines(text)
    ends = [number for number, _ in places[1:]] + [len(lines) + 1]
    return {
        name: "\n".join(lines[first : end - 1])
        for (first, name), end in zip(places, ends, strict=bool(places))
    }


def parameters_of(arguments: ast.arguments) -> list[Parameter]:
    """Return the parameters in their order; `self` is left out."""
    plain = [*arguments.posonlyargs, *arguments.args]
    needed = len(plain) - len(arguments.defaults)
    found = [
        Parameter(item.arg, has_default=place >= needed, is_positional=True)
        for place, item in enumerate(plain)
    ]
    found += [
        Parameter(item.arg, has_default=default is not None, is_positional=False)
        for item, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    stars = [("*", arguments.vararg), ("**", arguments.kwarg)]
    found += [
        Parameter(f"{star}{item.arg}", has_default=True, is_positional=False)
        for star, item in stars
        if item is not None
    ]
    return [item for item in found if item.name != "self"]


def entries_of(statements: Sequence[ast.stmt]) -> tuple[str, ...]:
    """Return the statements as a flat sequence, so that what was only added can be told.

    A compound statement gives its head and then its parts; a dictionary written out gives one
    entry for each of its keys.
    """
    return tuple(_entries(statements))


def own_calls(node: ast.AST) -> Iterator[ast.Call]:
    """Yield every call below a node, in no particular order."""
    return (item for item in ast.walk(node) if isinstance(item, ast.Call))


@lru_cache(maxsize=4)
def parsed(text: str) -> ast.Module:
    """Return the syntax tree of a script; raise BadScript when it is not Python."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f"line {getattr(error, 'lineno', None) or 1}"
        raise BadScript(Problem(where, f"is not Python: {error}", "mend it")) from error


def _module_lines(text: str) -> list[tuple[int, str]]:
    return [
        (number, found[1])
        for number, line in enumerate(text.split("\n"), 1)
        if (found := _MODULE_LINE.fullmatch(line))
    ]


def _module_at(places: list[tuple[int, str]], line: int) -> str:
    before = [name for number, name in places if number < line]
    return before[-1] if before else ""


def _definition(node: Function, name: str, module: str) -> Definition:
    body = _without_docstring(node.body)
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    decorators = tuple(f"@{ast.unparse(item)}" for item in node.decorator_list)
    signature = f"({ast.unparse(_bare(node.args))})"
    entries = (*decorators, *entries_of(body))
    return Definition(name, module, signature, entries, lines, node.args, tuple(body))


def _bare(arguments: ast.arguments) -> ast.arguments:
    """Return the parameters without annotations, which no call depends on."""
    bare = copy.deepcopy(arguments)
    for item in ast.walk(bare):
        if isinstance(item, ast.arg):
            item.annotation = None
    return bare


def _class(node: ast.ClassDef, module: str) -> ClassAnatomy:
    methods = {
        item.name: _definition(item, f"{node.name}.{item.name}", module)
        for item in node.body
        if isinstance(item, Function)
    }
    bases = tuple(ast.unparse(base) for base in node.bases)
    return ClassAnatomy(node.name, module, bases, dict(_assigned(node.body)), methods)


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    return (pair for pair in _assigned(tree.body) if pair[0] not in _PLAN_CONSTANTS)


def _assigned(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.AnnAssign):
            value = "" if node.value is None else f" = {ast.unparse(node.value)}"
            yield ast.unparse(node.target), f"{ast.unparse(node.annotation)}{value}"
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield ast.unparse(target), ast.unparse(node.value)


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a script, those below an `if` or `try` too, but of no definition."""
    for node in body:
        yield node
        if not isinstance(node, ast.ClassDef) and not isinstance(node, Function):
            for name in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, name, []))
            for handler in getattr(node, "handlers", []):
                yield from _statements(handler.body)


def _loose_statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield what a script does at its top level beside defining things."""
    kinds = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.ClassDef)
    for node in _without_docstring(tree.body):
        if not isinstance(node, kinds) and not isinstance(node, Function):
            kept = _WithoutDefinitions().visit(copy.deepcopy(node))
            assert isinstance(kept, ast.stmt)
            yield kept


class _WithoutDefinitions(ast.NodeTransformer):
    """Takes out functions and classes, which are looked at by themselves."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        del node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        del node

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        del node


def _roots(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
        for name in names:
            if name.partition(".")[0] not in sys.stdlib_module_names:
                yield name.partition(".")[0]


def _without_docstring(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    value = first.value if isinstance(first, ast.Expr) else None
    is_docstring = isinstance(value, ast.Constant) and isinstance(value.value, str)
    return list(body[1:] if is_docstring else body)


def _entries(statements: Sequence[ast.stmt]) -> Iterator[str]:
    for statement in statements:
        yield from _entries_of_one(statement)


def _entries_of_one(statement: ast.stmt) -> Iterator[str]:
    bodies = [name for name in ("body", "handlers", "orelse", "finalbody") if _has(statement, name)]
    if isinstance(statement, ast.ClassDef) or not bodies:
        yield from _unfolded(statement)
        return
    head = copy.copy(statement)
    for name in bodies:
        setattr(head, name, [])
    yield ast.dump(head)
    for name in bodies:
        parts = getattr(statement, name)
        if name == "handlers":
            for handler in parts:
                yield f"except {'' if handler.type is None else ast.unparse(handler.type)}"
                yield from _entries(handler.body)
        else:
            if name != "body":
                yield name
            yield from _entries(parts)


def _has(statement: ast.stmt, name: str) -> bool:
    parts = getattr(statement, name, None)
    return isinstance(parts, list) and bool(parts)


def _unfolded(statement: ast.stmt) -> Iterator[str]:
    displays = [node for node in ast.walk(statement) if isinstance(node, ast.Dict)]
    if not displays:
        yield ast.dump(statement)
        return
    yield ast.dump(_Emptied().visit(copy.deepcopy(statement)))
    for display in displays:
        for key, value in zip(display.keys, display.values, strict=True):
            name = "**" if key is None else ast.unparse(key)
            yield f"{name}: {ast.dump(_Emptied().visit(copy.deepcopy(value)))}"


class _Emptied(ast.NodeTransformer):
    """Takes the entries out of every dictionary written out."""

    def visit_Dict(self, node: ast.Dict) -> ast.Dict:  # noqa: ARG002 - ast's own name
        return ast.Dict([], [])


def _line_count(statements: Sequence[ast.stmt]) -> int:
    return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in statements)
