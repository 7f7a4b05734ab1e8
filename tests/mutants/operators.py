"""Mutants of a module: one small slip each, as somebody might make it, by changing its syntax tree.

An operator gets a node and yields what may stand in its place. Docstrings, annotations and imports
are left alone: nothing that runs would change.
"""

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

Path = tuple[tuple[str, int | None], ...]

_TWINS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
_SIMPLE = (ast.Expr, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Raise, ast.Return)
_FEWEST_TO_SWAP = 2


@dataclass(frozen=True)
class Mutant:
    """One slip: where it is, what stood there, what stands there now, and the changed statement.

    `place` is the number of the statement in its module, `count` tells slips apart that read the
    same.
    """

    module: str
    function: str
    operator: str
    before: str
    after: str
    place: int
    statement: ast.stmt
    count: int = 1

    @property
    def name(self) -> str:
        """Return what the mutant is called, the same as long as the code around it reads so."""
        number = f" #{self.count}" if self.count > 1 else ""
        return (
            f"{self.module}.{self.function} [{self.operator}] {self.before} -> {self.after}{number}"
        )


def mutants_of(module: str, statements: list[ast.stmt]) -> list[Mutant]:
    """Return every mutant of a module, in the order of its text, each with a name of its own."""
    found = [
        mutant
        for place, statement in enumerate(statements)
        for mutant in _mutants_of_statement(module, place, statement)
    ]
    counts: Counter[str] = Counter()
    named = []
    for mutant in found:
        counts[mutant.name] += 1
        named.append(replace(mutant, count=counts[mutant.name]))
    return named


def _mutants_of_statement(module: str, place: int, statement: ast.stmt) -> Iterator[Mutant]:
    for path, node, function in _places(statement, (), ""):
        for name, operator in OPERATORS.items():
            for other in operator(node):
                changed = _replaced(statement, path, other)
                before, after = _short(node), _short(other)
                yield Mutant(module, function, name, before, after, place, changed)


def _short(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split("\n")[0].split())


def _places(node: ast.AST, path: Path, function: str) -> Iterator[tuple[Path, ast.AST, str]]:
    """Yield every node that runs, with the way to it and the function it stands in."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}".lstrip(".")
    yield path, node, function
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns", "type_comment", "bases"}:
            continue
        items = value if isinstance(value, list) else [value]
        for number, item in enumerate(items):
            if isinstance(item, ast.AST) and not _is_docstring(node, field, number):
                step = (field, number if isinstance(value, list) else None)
                yield from _places(item, (*path, step), function)


def _is_docstring(node: ast.AST, field: str, number: int) -> bool:
    if field != "body" or number or not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return False
    first = node.body[0]
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)


def _replaced(statement: ast.stmt, path: Path, other: ast.AST) -> ast.stmt:
    """Return a copy of the statement with another node at the end of the path."""
    if not path:
        assert isinstance(other, ast.stmt)
        return ast.fix_missing_locations(ast.copy_location(other, statement))
    root = copy.deepcopy(statement)
    node: ast.AST = root
    for field, number in path[:-1]:
        found = getattr(node, field)
        node = found if number is None else found[number]
    field, number = path[-1]
    if number is None:
        setattr(node, field, other)
    else:
        getattr(node, field)[number] = other
    return ast.fix_missing_locations(root)


def _swapped_operators(node: ast.AST) -> Iterator[ast.AST]:
    """Yield twins of a comparison, an arithmetic or a boolean operator."""
    if isinstance(node, ast.Compare):
        for number, found in enumerate(node.ops):
            for twin in _TWINS.get(type(found), ()):
                other = copy.deepcopy(node)
                other.ops[number] = twin()  # type: ignore[call-overload]  # an operator's twin
                yield other
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign):
        for twin in _TWINS.get(type(node.op), ()):
            changed = copy.deepcopy(node)
            changed.op = twin()  # type: ignore[assignment]  # the same
            yield changed


def _other_constants(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a number one more and one less, the other truth, a text with a letter more."""
    if not isinstance(node, ast.Constant):
        return
    match node.value:
        case bool():
            yield ast.Constant(not node.value)
        case int() | float():
            yield ast.Constant(node.value + 1)
            yield (
                ast.UnaryOp(ast.USub(), ast.Constant(1))
                if node.value == 0
                else ast.Constant(node.value - 1)
            )
        case str():
            yield ast.Constant(f"{node.value}X")
        case _:
            return


def _negated(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a condition turned round, a `not` or a sign left out."""
    if isinstance(node, ast.If | ast.IfExp):
        other = copy.deepcopy(node)
        other.test = ast.UnaryOp(ast.Not(), other.test)
        yield other
    elif isinstance(node, ast.comprehension):
        for number, test in enumerate(node.ifs):
            changed = copy.deepcopy(node)
            changed.ifs[number] = ast.UnaryOp(ast.Not(), copy.deepcopy(test))
            yield changed
    elif isinstance(node, ast.UnaryOp):
        yield copy.deepcopy(node.operand)


def _left_out(node: ast.AST) -> Iterator[ast.AST]:
    """Yield nothing in the place of a statement, None in that of what is returned."""
    if isinstance(node, ast.Return):
        if node.value is not None and not _is_none(node.value):
            yield ast.Return(ast.Constant(None))
    elif isinstance(node, _SIMPLE) and not (isinstance(node, ast.AnnAssign) and node.value is None):
        yield ast.Pass()


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _swapped_arguments(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a call with its first two arguments the other way round; min for max instead."""
    if not isinstance(node, ast.Call):
        return
    is_symmetric = isinstance(node.func, ast.Name) and node.func.id in _NAMES
    if len(node.args) >= _FEWEST_TO_SWAP and not is_symmetric:
        other = copy.deepcopy(node)
        other.args[0], other.args[1] = other.args[1], other.args[0]
        yield other
    if isinstance(node.func, ast.Name) and node.func.id in _NAMES:
        changed = copy.deepcopy(node)
        changed.func = ast.Name(_NAMES[node.func.id], ast.Load())
        yield changed


def _undecorated(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        for number in range(len(node.decorator_list)):
            other = copy.deepcopy(node)
            del other.decorator_list[number]
            yield other


OPERATORS: dict[str, Callable[[ast.AST], Iterator[ast.AST]]] = {
    "operator": _swapped_operators,
    "constant": _other_constants,
    "condition": _negated,
    "left out": _left_out,
    "arguments": _swapped_arguments,
    "decorator": _undecorated,
}
