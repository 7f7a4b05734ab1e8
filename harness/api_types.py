"""Does a value fit the type that a library writes for an argument."""

import ast
from collections.abc import Iterator

# What JSON can carry, by the names that annotations use for it.
_CARRIED = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "dict": dict}


def misfit(annotation: str, value: object) -> bool:
    """Tell whether a value of a config is of no type that the annotation names.

    A whole number is a float too, and True is no number. An annotation with a name that is not
    known here fits everything: nobody can say.

    >>> misfit("int | None", "many"), misfit("float", 1), misfit("int", True)
    (True, False, True)
    >>> misfit("ParallelismConfig | None", {"tp_size": 2})
    False
    """
    names = set(_names(ast.parse(annotation, mode="eval").body))
    if not names <= {*_CARRIED, "None"}:
        return False
    if value is None:
        return "None" not in names
    if isinstance(value, bool):
        return "bool" not in names
    if isinstance(value, int):
        return not names & {"int", "float"}
    return not isinstance(value, tuple(_CARRIED[name] for name in names - {"None"}))


def _names(node: ast.expr) -> Iterator[str]:
    """Yield the types of a union, a list or dict by that name whatever it holds."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        yield from _names(node.left)
        yield from _names(node.right)
    elif isinstance(node, ast.Subscript):
        yield from _names(node.value)
    else:
        yield ast.unparse(node)
