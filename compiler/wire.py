"""The script as it travels: the same program, line for line, without what only people read.

Comments and docstrings are a quarter of the payload, and the limit is one API request. So they stay
at home, in the script that was verified and that a person reads; the pod gets every other
character on the line where it stood, and a traceback from there points into the file here.
"""

import ast
import copy
import io
import tokenize
from functools import lru_cache
from types import CodeType
from typing import Any, TypeVar

from podproof.compiler.syntax import syntax_of

_Node = TypeVar("_Node", bound=Any)

# Where a statement holds other statements.
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


@lru_cache(maxsize=4)
def wire_form(text: str) -> str:
    r"""Return the text with comments and docstrings emptied, and as many lines as before.

    The comment block at the very top stays: it is the metadata that uv reads. Text that is not
    Python travels as it is.

    >>> wire_form('# /// script' + chr(10) + 'def f():' + chr(10) + '    return 1  # why')
    '# /// script\ndef f():\n    return 1'
    """
    try:
        return _without_comments(_without_docstrings(text))
    except (SyntaxError, ValueError, tokenize.TokenError):
        return text


def is_same_program(text: str, travels: str) -> bool:
    """Tell whether `travels` is the text with its docstrings emptied, comments and blanks aside.

    Line numbers count; raises SyntaxError for what is not Python.
    """
    # Comparing what both compile to is far faster than comparing syntax trees.
    return _shape(_compiled(_emptied(syntax_of(text).tree))) == _shape(_compiled(travels))


def _compiled(program: str | ast.Module) -> CodeType:
    return compile(program, "pod_script.py", "exec", dont_inherit=True)


def _shape(code: CodeType) -> tuple[object, ...]:
    """Return all of the code but the columns, which what was emptied before them has moved."""
    constants = [
        _shape(item) if isinstance(item, CodeType) else (type(item), item)
        for item in code.co_consts
    ]
    named = (code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    taken = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    lines = (code.co_firstlineno, *code.co_lines())
    return (code.co_code, code.co_exceptiontable, named, taken, lines, constants)


def _emptied(node: _Node) -> _Node:
    """Return the node with each docstring empty; what does not change is shared, not copied."""
    blocks = {name: getattr(node, name, None) for name in _BLOCKS}
    held = {name: block for name, block in blocks.items() if isinstance(block, list)}
    if not held:
        return node
    twin = copy.copy(node)
    for name, block in held.items():
        setattr(twin, name, [_emptied(item) for item in block])
    for docstring in _docstring(node):
        value = ast.copy_location(ast.Constant(""), docstring)
        empty = ast.copy_location(ast.Expr(value), docstring)
        value.end_lineno = empty.end_lineno = docstring.lineno
        value.end_col_offset = empty.end_col_offset = docstring.col_offset + len('""')
        twin.body[0] = empty
    return twin


def _docstring(node: ast.AST) -> list[ast.Expr]:
    """Return the docstring of a module, class or function, if it has one."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    if not isinstance(node, documented) or ast.get_docstring(node, clean=False) is None:
        return []
    first = node.body[0]
    assert isinstance(first, ast.Expr)
    return [first]


def _without_docstrings(text: str) -> str:
    # Offsets of the syntax tree count bytes of UTF-8.
    lines = [line.encode() for line in text.split("\n")]
    docstrings = (item for node in syntax_of(text).nodes for item in _docstring(node))
    for docstring in docstrings:
        first, last = docstring.lineno - 1, (docstring.end_lineno or docstring.lineno) - 1
        rest = lines[last][docstring.end_col_offset :]
        lines[first : last + 1] = [
            lines[first][: docstring.col_offset] + b'""' + rest,
            *[b""] * (last - first),
        ]
    return b"\n".join(lines).decode()


def _without_comments(text: str) -> str:
    lines = text.split("\n")
    top = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT and row > top:
            lines[row - 1] = lines[row - 1][:column].rstrip()
    return "\n".join(lines)
