"""The script as it travels: the same program, line for line, without what only people read.

Comments and docstrings are a quarter of the payload, and the limit is one API request. So they stay
at home, in the script that was verified and that a person reads; the pod gets every other
character on the line where it stood, and a traceback from there points into the file here.
"""

import ast
import io
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType


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


def is_same_program(text: str, other: str) -> bool:
    """Tell whether two scripts differ in comments, docstrings and blanks only.

    Line numbers count; raises SyntaxError for what is not Python.
    """
    return _shape(_program(text)) == _shape(_program(other))


def _program(text: str) -> CodeType:
    """Compile the text, each docstring empty; far faster than comparing syntax trees."""
    tree = ast.parse(text)
    for docstring in _docstrings(tree):
        docstring.value = ast.copy_location(ast.Constant(""), docstring)
        docstring.value.end_lineno = docstring.end_lineno = docstring.lineno
        docstring.value.end_col_offset = docstring.end_col_offset = docstring.col_offset + 2
    return compile(tree, "pod_script.py", "exec", dont_inherit=True)


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


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, name, None)
            waiting += inner if isinstance(inner, list) else []


def _docstrings(tree: ast.Module) -> Iterator[ast.Expr]:
    for node in _statements(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0] if node.body else None
        value = first.value if isinstance(first, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            assert isinstance(first, ast.Expr)
            yield first


def _without_docstrings(text: str) -> str:
    # Offsets of the syntax tree count bytes of UTF-8.
    lines = [line.encode() for line in text.split("\n")]
    for docstring in _docstrings(ast.parse(text)):
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
