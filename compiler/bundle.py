"""Join real modules of runtime/ into one file, by cutting lines, never by writing code.

The result reads like a file somebody wrote: comments, docstrings and line breaks survive, since
only import statements are taken out and put once at the top. For that, a bundled module keeps
four rules, and `NotBundleable` says which one a module breaks:

    1. it imports our own modules only as `from podproof.runtime.x import name`, at the top
    2. every name it defines or imports at the top level means the same in all bundled modules
    3. the imports between modules have no cycle
    4. importing it does nothing: no statement but imports, definitions and assignments, no
       `__file__`, and `__name__` only in the entry module
"""

import ast
import builtins
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from podproof.compiler.errors import NotBundleable
from podproof.runtime.errors import Problem

OWN_PACKAGE = "podproof.runtime."


@dataclass(frozen=True)
class Bundle:
    """One file's text, and where each module lies in it: (name, first line, last line), from 1."""

    text: str
    modules: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class _Module:
    name: str
    source: str
    tree: ast.Module

    @property
    def lines(self) -> list[str]:
        # Not splitlines: to Python, and so to line numbers, a form feed does not end a line.
        return self.source.split("\n")


def bundle(
    sources: Mapping[str, str],
    entry: str,
    *,
    preamble: str,
    constants: Mapping[str, str],
    parts: Collection[str] | None = None,
) -> Bundle:
    """Return the bundle of `entry` and all it imports, in import order, entry last.

    `sources` maps module names to source text. `preamble` is a block of comment lines that stands
    first. `constants` gives, for names assigned in the entry module, the text that each of them
    shall hold; it becomes a string literal and is never read as code. `parts` names the entries
    of the entry module's mapping PARTS to keep; the lines of the others are cut, and with them
    every module that only they need (None keeps all). Raise NotBundleable with every rule that is
    broken.
    """
    if parts is not None:
        sources = {**sources, entry: cut_parts(sources[entry], parts)}
    modules = _in_import_order(sources, entry)
    problems = [
        problem
        for module in modules
        for problem in _broken_rules(module.name, module.source, is_entry=module.name == entry)
    ]
    problems += _shared_names(modules)
    problems += _unassigned(modules[-1], constants)
    if problems:
        raise NotBundleable(*sorted(set(problems)))
    return _joined(modules, preamble=preamble, constants=constants)


def cut_parts(source: str, kept: Collection[str]) -> str:
    """Return the source without the lines of those entries of PARTS that are not kept.

    The imports whose names nothing else uses go with them. Raise NotBundleable for a part that
    is not there.
    """
    tree = ast.parse(source)
    entries = {
        str(ast.literal_eval(key)): (key, value)
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict)
        for key, value in zip(node.value.keys, node.value.values, strict=True)
        if key is not None and _defined_names(node) == ["PARTS"]
    }
    unknown = [f"PARTS.{name}" for name in sorted(set(kept) - entries.keys())]
    if unknown:
        raise NotBundleable(*[Problem(where, "is no part of the script") for where in unknown])
    cut = [node for name, entry in entries.items() if name not in kept for node in entry]
    cut_names = {node.id for node in cut if isinstance(node, ast.Name)}
    imports = [
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and cut_names >= {alias.name for alias in node.names}
    ]
    gone = {line for node in cut for line in _line_numbers(node)}
    gone |= {line for node in imports for line in _line_numbers(node)}
    lines = source.split("\n")
    return "\n".join(line for number, line in enumerate(lines, 1) if number not in gone)


def _line_numbers(node: ast.stmt | ast.expr) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def text_literal(text: str) -> str:
    """Return a Python literal of `text` that stays readable when it is JSON of many lines.

    The literal is a raw triple-quoted string, which nothing inside can end or escape: JSON has
    no bare backslash or quote at the places that would matter, and the result is read back here.
    """
    literal = f'r"""{text}"""'
    try:
        read_back = ast.literal_eval(literal)
    except (SyntaxError, ValueError):
        read_back = None
    return literal if read_back == text else repr(text)


def _in_import_order(sources: Mapping[str, str], entry: str) -> list[_Module]:
    ordered: dict[str, _Module] = {}
    _visit(entry, sources, ordered, ())
    return list(ordered.values())


def _visit(
    name: str, sources: Mapping[str, str], ordered: dict[str, _Module], path: tuple[str, ...]
) -> None:
    if name in ordered:
        return
    if name in path:
        circle = " -> ".join((*path[path.index(name) :], name))
        raise NotBundleable(Problem(name, f"imports itself: {circle}", "break the circle"))
    if name not in sources:
        where = path[-1] if path else "bundle"
        what = f"imports {OWN_PACKAGE}{name}, which cannot ride in the script"
        raise NotBundleable(Problem(where, what))
    module = _Module(name, sources[name], _parsed_source(name, sources[name]))
    for node in module.tree.body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(OWN_PACKAGE):
            _visit(str(node.module).removeprefix(OWN_PACKAGE), sources, ordered, (*path, name))
    ordered[name] = module


@lru_cache(maxsize=256)
def _parsed_source(name: str, source: str) -> ast.Module:
    """Return the syntax tree, which nobody changes: a batch of configs parses each module once."""
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise NotBundleable(
            Problem(f"{name}.py:{error.lineno}", f"is not Python: {error}")
        ) from error


def _is_own(module: str | None) -> bool:
    return module is not None and (module + ".").startswith("podproof.")


@lru_cache(maxsize=256)
def _broken_rules(name: str, source: str, *, is_entry: bool) -> tuple[Problem, ...]:
    tree = _parsed_source(name, source)
    return (*_broken_names(name, tree, is_entry=is_entry), *_broken_order(name, tree, is_entry))


def _broken_names(name: str, tree: ast.Module, *, is_entry: bool) -> Iterator[Problem]:
    top_level = set(map(id, tree.body))
    for node in ast.walk(tree):
        where = f"{name}.py:{getattr(node, 'lineno', 1)}"
        yield from _broken_import_rules(node, where, at_top=id(node) in top_level)
        if isinstance(node, ast.Name) and node.id == "__file__":
            yield Problem(where, "reads __file__, which is another one in the script")
        if isinstance(node, ast.Name) and node.id == "__name__" and not is_entry:
            yield Problem(where, "reads __name__, which is another one in the script")


def _broken_order(name: str, tree: ast.Module, is_entry: bool) -> Iterator[Problem]:  # noqa: FBT001 - private, called once
    taken = 0
    for position, statement in enumerate(tree.body):
        where = f"{name}.py:{statement.lineno}"
        if not _does_nothing(statement, position, is_entry):
            yield Problem(where, "does something when imported", "move it into a function")
        if statement.lineno == taken:
            yield Problem(where, "shares a line with the statement before", "give it its own line")
        taken = statement.end_lineno or statement.lineno


def _broken_import_rules(node: ast.AST, where: str, *, at_top: bool) -> Iterator[Problem]:
    if isinstance(node, ast.ImportFrom):
        yield from _broken_from_rules(node, where, at_top=at_top)
    if isinstance(node, ast.Import):
        for alias in node.names:
            if _is_own(alias.name):
                yield Problem(where, f"imports the module {alias.name}", "import its names")
    if isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            if alias.name == "*" or (alias.asname and at_top):
                yield Problem(where, f"imports {alias.name} as another name", "keep its name")


def _broken_from_rules(node: ast.ImportFrom, where: str, *, at_top: bool) -> Iterator[Problem]:
    if node.level:
        yield Problem(where, "imports relatively", f"write from {OWN_PACKAGE}x import name")
    if node.module == "__future__":
        yield Problem(where, "would change how every other module is compiled", "do without it")
    if not _is_own(node.module):
        return
    if not str(node.module).startswith(OWN_PACKAGE):
        yield Problem(
            where, f"imports from {node.module}", f"write from {OWN_PACKAGE}x import name"
        )
    if not at_top:
        yield Problem(where, "imports our own module inside a function", "move it to the top")


def _does_nothing(node: ast.stmt, position: int, is_entry: bool) -> bool:  # noqa: FBT001 - private, called once
    if _is_docstring(node):
        return position == 0
    if is_entry and isinstance(node, ast.If):
        return "__name__" in ast.unparse(node.test)
    return isinstance(
        node,
        ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign,
    )


def _shared_names(modules: list[_Module]) -> list[Problem]:
    """Return a problem for each name that would mean another thing once all stand in one file."""
    owners = {name: "Python itself" for name in dir(builtins) if not name.startswith("__")}
    problems = []
    for module in modules:
        for name, origin in _bound_names(module):
            owner = owners.setdefault(name, origin)
            if owner != origin:
                what = f"is bound by {origin}, and by {owner} too"
                problems.append(Problem(f"{module.name}.{name}", what, "choose another name"))
    return problems


def _bound_names(module: _Module) -> Iterator[tuple[str, str]]:
    """Yield each name bound at the top level, and what it stands for."""
    for node in module.tree.body:
        if isinstance(node, ast.Import):
            roots = (alias.name.partition(".")[0] for alias in node.names)
            yield from ((root, f"import {root}") for root in roots)
        elif isinstance(node, ast.ImportFrom) and not _is_own(node.module):
            yield from ((alias.name, f"from {node.module}") for alias in node.names)
        else:
            yield from ((name, f"module {module.name}") for name in _defined_names(node))


def _defined_names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Assign):
        names = (name for target in node.targets for name in ast.walk(target))
        return [name.id for name in names if isinstance(name, ast.Name)]
    return []


def _unassigned(entry: _Module, constants: Mapping[str, str]) -> list[Problem]:
    assigned = {
        ast.unparse(node.targets[0]) for node in entry.tree.body if isinstance(node, ast.Assign)
    }
    return [
        Problem(f"{entry.name}.{name}", "is not assigned, so the script would not hold its text")
        for name in sorted(constants.keys() - assigned)
    ]


def _joined(modules: list[_Module], *, preamble: str, constants: Mapping[str, str]) -> Bundle:
    entry = modules[-1]
    head = [preamble.rstrip("\n"), *_docstring_lines(entry), "", *_imports(modules)]
    lines = "\n".join(head).split("\n")
    spans = []
    for module in modules:
        body = _body_lines(module, constants if module is entry else {})
        lines += ["", "", f"# {'-' * 10} {module.name} {'-' * (87 - len(module.name))}"]
        first = len(lines)
        lines += body
        spans.append((module.name, first, len(lines)))
    return Bundle("\n".join(lines) + "\n", tuple(spans))


def _imports(modules: list[_Module]) -> list[str]:
    """Return the standard-library imports of all modules once, sorted as isort sorts them."""
    plain: set[str] = set()
    named: dict[str, set[str]] = {}
    for node in (node for module in modules for node in module.tree.body):
        if isinstance(node, ast.Import):
            plain |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not _is_own(node.module):
            named.setdefault(str(node.module), set()).update(alias.name for alias in node.names)
    nodes: list[ast.stmt] = [ast.Import([ast.alias(name)]) for name in sorted(plain)]
    nodes += [
        ast.ImportFrom(module, [ast.alias(name) for name in sorted(named[module])], 0)
        for module in sorted(named)
    ]
    return [ast.unparse(node) for node in nodes]


def _body_lines(module: _Module, constants: Mapping[str, str]) -> list[str]:
    """Return a module's lines without its imports, the docstring kept as comments."""
    lines: list[str | None] = list(module.lines)
    replaced: list[tuple[ast.expr, str]] = []
    for position, node in enumerate(module.tree.body):
        is_docstring = position == 0 and _is_docstring(node)
        if isinstance(node, ast.Import | ast.ImportFrom) or is_docstring:
            lines[node.lineno - 1 : node.end_lineno] = [None] * _line_count(node)
        elif isinstance(node, ast.Assign):
            name = ast.unparse(node.targets[0])
            replaced += [(node.value, constants[name])] if name in constants else []
    for value, text in replaced:
        before = module.lines[value.lineno - 1][: value.col_offset]
        lines[value.lineno - 1 : value.end_lineno] = [before + text_literal(text)]
    kept = "\n".join(line for line in lines if line is not None).strip("\n")
    return [*_docstring_as_comments(module), "", *kept.split("\n")]


def _docstring_lines(module: _Module) -> list[str]:
    """Return the lines of the module's docstring as they stand, quotes and escapes included."""
    found = [node for node in module.tree.body[:1] if _is_docstring(node)]
    return [line for node in found for line in module.lines[node.lineno - 1 : node.end_lineno]]


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _line_count(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _docstring_as_comments(module: _Module) -> list[str]:
    docstring = ast.get_docstring(module.tree) or ""
    return [f"# {line}".rstrip() for line in docstring.splitlines()]
