"""What in the syntax of a formula can tell one call, or one process, from another.

A formula must come to the same score on every rank, and again when a log is replayed. Seen are
state that outlives a call (a mutable default or a mutable value of the module, changed in a
function) and text taken out of a set, whose order differs from process to process.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# Methods by which a list, a set, a dictionary, a deque or a counter changes.
_CHANGING_METHODS = frozenset(
    {
        "add",
        "append",
        "appendleft",
        "clear",
        "difference_update",
        "discard",
        "extend",
        "extendleft",
        "insert",
        "intersection_update",
        "move_to_end",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "reverse",
        "rotate",
        "setdefault",
        "sort",
        "subtract",
        "symmetric_difference_update",
        "update",
    }
)
_CHANGING_FUNCTIONS = frozenset(
    {"heappop", "heappush", "heappushpop", "heapreplace", "insort", "insort_left", "insort_right"}
    | {"next", "setattr"}
)
_SET_MAKERS = frozenset({"frozenset", "set"})
# What gives the items of its argument in the order in which it finds them.
_IN_ORDER = frozenset({"enumerate", "filter", "iter", "join", "list", "map", "reduce", "tuple"})
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True, order=True)
class Differing:
    """One place where a formula may differ from call to call, or from process to process."""

    line: int
    what: str
    way_out: str


def differing(tree: ast.Module) -> tuple[Differing, ...]:
    """Return every such place, by line.

    >>> differing(ast.parse("SEEN = []" + chr(10) + "def f(x): SEEN.append(x)"))[0].what
    'changes SEEN, which outlives the call'
    """
    return tuple(sorted({*_kept(tree), *_unordered(tree)}))


def _kept(tree: ast.Module) -> Iterator[Differing]:
    shared = {name for node in tree.body for name in _names_bound_by(node)}
    functions = [node for node in ast.walk(tree) if isinstance(node, _DEFINITIONS)]
    for function in functions:
        local = _local_names(function)
        kept = (shared - local) | (_mutable_defaults(function) - _assigned(function))
        for node in _body_nodes(function):
            for name in sorted(kept & set(_changed_by(node))):
                what = f"changes {name}, which outlives the call"
                way_out = "state has what a run remembers, and comes back after a restart"
                yield Differing(node.lineno, what, way_out)


def _names_bound_by(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _body_nodes(function: _Function) -> Iterator[ast.expr | ast.stmt]:
    body = [function.body] if isinstance(function, ast.Lambda) else function.body
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.expr | ast.stmt):
                yield node


def _local_names(function: _Function) -> set[str]:
    arguments = function.args
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    given += [item for item in (arguments.vararg, arguments.kwarg) if item is not None]
    shared = {
        name
        for node in _body_nodes(function)
        if isinstance(node, ast.Global)
        for name in node.names
    }
    return {item.arg for item in given} | (_assigned(function) - shared)


def _assigned(function: _Function) -> set[str]:
    """Return the names a function binds; `x += 1` changes what x is bound to already."""
    nodes = list(_body_nodes(function))
    changed = {id(node.target) for node in nodes if isinstance(node, ast.AugAssign)}
    return {
        node.id
        for node in nodes
        if isinstance(node, ast.Name)
        and isinstance(node.ctx, ast.Store)
        and id(node) not in changed
    }


def _mutable_defaults(function: _Function) -> set[str]:
    """Return the arguments whose default is made once and can be changed by a call."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = zip(reversed(positional), reversed(arguments.defaults), strict=False)
    keyword = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    pairs = [*defaults, *((item, value) for item, value in keyword if value is not None)]
    return {item.arg for item, value in pairs if not isinstance(value, ast.Constant)}


def _changed_by(node: ast.expr | ast.stmt) -> Iterator[str]:
    """Yield the names whose values a statement or expression changes in place, or rebinds."""
    if isinstance(node, ast.Global):
        yield from node.names
    elif isinstance(node, ast.AugAssign):
        yield _root(node.target)
    elif isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
        yield _root(node)
    elif isinstance(node, ast.Call):
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else _root(called)
        if isinstance(called, ast.Attribute) and name in _CHANGING_METHODS:
            yield _root(called.value)
        elif name in _CHANGING_FUNCTIONS and node.args:
            yield _root(node.args[0])


def _root(node: ast.expr) -> str:
    """Return the name that an expression starts from, `x` for `x.y[0].z`; "" for none."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _unordered(tree: ast.Module) -> Iterator[Differing]:
    sets = _sets_of_text(tree)
    for node in ast.walk(tree):
        for source in _taken_in_order(node):
            if _is_set_of_text(source, sets):
                what = "takes text out of a set in an order that differs from process to process"
                yield Differing(source.lineno, what, "sort it first, or write a tuple")


def _taken_in_order(node: ast.AST) -> list[ast.expr]:
    """Return what a node goes through item by item, in the order of the items."""
    if isinstance(node, ast.For | ast.comprehension):
        return [node.iter]
    if isinstance(node, ast.Starred):
        return [node.value]
    if not isinstance(node, ast.Call):
        return []
    called = node.func
    if isinstance(called, ast.Attribute) and called.attr == "pop" and not node.args:
        return [called.value]
    name = called.attr if isinstance(called, ast.Attribute) else _root(called)
    return list(node.args) if name in _IN_ORDER else []


def _sets_of_text(tree: ast.Module) -> Mapping[str, bool]:
    """Return the names that are bound to sets of text only, wherever they are bound."""
    bound: dict[str, bool] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for name in _names_bound_by(node):
                bound[name] = bound.get(name, True) and _is_set_of_text(node.value, {})
    return bound


def _is_set_of_text(node: ast.expr, sets: Mapping[str, bool]) -> bool:
    if isinstance(node, ast.Name):
        return sets.get(node.id, False)
    if isinstance(node, ast.BinOp):
        return _is_set_of_text(node.left, sets) or _is_set_of_text(node.right, sets)
    if isinstance(node, ast.Call) and _root(node.func) in _SET_MAKERS and node.args:
        given = node.args[0]
        return _is_text(given) or any(map(_is_text, getattr(given, "elts", ())))
    if isinstance(node, ast.SetComp):
        return _is_text(node.elt)
    return isinstance(node, ast.Set) and any(map(_is_text, node.elts))


def _is_text(node: ast.expr) -> bool:
    is_literal = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return is_literal or isinstance(node, ast.JoinedStr)
