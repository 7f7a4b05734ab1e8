"""The syntax tree of a script, parsed once however many questions are asked about it."""

import ast
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Syntax:
    """The tree of one text and all of its nodes, in the order of ast.walk; nobody changes them."""

    tree: ast.Module
    nodes: tuple[ast.AST, ...]


# Two: a script and the one it is compared with. Each is some 25 MB.
@lru_cache(maxsize=2)
def syntax_of(text: str) -> Syntax:
    """Return the syntax of a text; raise what ast.parse raises for what is not Python."""
    tree = ast.parse(text)
    return Syntax(tree, tuple(ast.walk(tree)))
