"""Rules about code that only its syntax tree can tell."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("compiler", "runtime", "harness", "launcher", "monitor", "src/podproof/cli")
MODULES = sorted(path for folder in PACKAGES for path in (ROOT / folder).glob("*.py"))

# The command line prints results, and these two speak to the log of the pod they run on.
PRINTERS = {"src/podproof/cli", "runtime/main.py", "runtime/boot.py"}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def calls(path: Path, name: str) -> bool:
    """Tell whether a file calls something by this name."""
    return any(
        isinstance(node, ast.Call)
        and name in {getattr(node.func, "id", None), getattr(node.func, "attr", None)}
        for node in ast.walk(parsed(path))
    )


def texts(tree: ast.Module) -> Iterator[str]:
    """Yield every string constant but docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [] if id(node) in docstrings else [node.value]


def is_code(text: str) -> bool:
    """Tell whether a text is Python beyond expressions and comments."""
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError):
        return False
    return any(not isinstance(statement, ast.Expr) for statement in statements)


def test_a_template_of_code_would_be_noticed() -> None:
    assert is_code("import os\n")
    assert is_code("def main(): ...")
    assert is_code("PLAN = 1")
    assert not is_code("# /// script")
    assert not is_code("must be a number")
    assert not is_code("a.b")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "compiler").glob("*.py")), ids=lambda path: path.stem
)
def test_the_compiler_holds_no_code_as_text(path: Path) -> None:
    assert [text for text in texts(parsed(path)) if is_code(text)] == []


def test_a_cleared_script_is_made_in_one_place() -> None:
    makers = [str(path.relative_to(ROOT)) for path in MODULES if calls(path, "Cleared")]

    assert makers == ["harness/gates.py"]


def test_only_the_command_line_and_the_pods_own_programs_print() -> None:
    printing = {path.relative_to(ROOT) for path in MODULES if calls(path, "print")}

    strangers = {
        str(path)
        for path in printing
        if str(path) not in PRINTERS and str(path.parent) not in PRINTERS
    }
    assert strangers == set()


def test_no_module_keeps_a_note_of_work_not_done() -> None:
    # The words are put together here, so that this file does not find itself.
    notes = ("TO" + "DO", "FIX" + "ME", "XX" + "X")

    found = {
        str(path.relative_to(ROOT))
        for path in [*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
        if any(note in path.read_text(encoding="utf-8") for note in notes)
    }
    assert found == set()
