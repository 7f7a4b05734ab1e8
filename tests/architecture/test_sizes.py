"""How large a piece of code may be, so that it can be read in one go."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (
    "compiler",
    "runtime",
    "harness",
    "launcher",
    "monitor",
    "src/podproof/cli",
    "examples",
    "benchmarks",
    "tests",
)
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

FUNCTION_LINES = 40
MODULE_LINES = 400


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each function of a file with its number of lines, the docstring left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, _lines(node) - _docstring_lines(node)


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return 0 if ast.get_docstring(node) is None else _lines(node.body[0])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_and_modules_stay_readable(path: Path) -> None:
    long_functions = {name: lines for name, lines in functions(path) if lines > FUNCTION_LINES}
    lines = len(path.read_text(encoding="utf-8").splitlines())

    assert long_functions == {}
    assert lines <= MODULE_LINES
