"""Bundling: real modules become one file by cutting lines, or a clear refusal."""

import ast
import json
from collections.abc import Mapping

import pytest
from hypothesis import example, given, strategies as st

from podproof.compiler.bundle import Bundle, bundle, text_literal
from podproof.compiler.errors import NotBundleable

TOOLS = '''"""Tools, and why.

Two paragraphs.
"""

import math  # for isfinite
from dataclasses import (
    dataclass,
    field,
)

# A comment above a constant.
LIMIT = 3  # and one behind it


@dataclass(frozen=True)
class Tool:
    """Holds a name."""

    name: str = field(default="x")  # the field's own comment

    def is_finite(self) -> bool:
        # Inside a function.
        return math.isfinite(LIMIT)
'''

WORK = '''"""Work."""

import math
import json

from podproof.runtime.tools import LIMIT, Tool


def work(text: str) -> str:
    import torch as th  # heavy, so it waits

    return json.dumps([text, LIMIT, Tool().name, math.pi, str(th)])
'''

ENTRY = '''r"""Starts \\work, "quoted"."""

from podproof.runtime.work import work

PLAN_JSON = "{}"
TITLE = "none"

if __name__ == "__main__":
    raise SystemExit(work(PLAN_JSON))
'''

GOOD = {"tools": TOOLS, "work": WORK, "entry": ENTRY}


def bundled(sources: Mapping[str, str] = GOOD, **constants: str) -> Bundle:
    return bundle(sources, "entry", preamble="# preamble", constants=constants)


def refusals(**changes: str) -> dict[str, str]:
    """Return what is wrong with the good modules once some are changed, by place."""
    with pytest.raises(NotBundleable) as refused:
        bundled({**GOOD, **changes})
    return {problem.where: problem.what for problem in refused.value.problems}


# What comes out.


def test_a_good_set_becomes_a_file_that_runs() -> None:
    namespace: dict[str, object] = {"__name__": "elsewhere"}

    exec(compile(bundled(PLAN_JSON="[1]").text, "bundle.py", "exec"), namespace)  # noqa: S102 - it is our own text

    assert namespace["PLAN_JSON"] == "[1]"
    assert {"Tool", "work", "LIMIT"} <= set(namespace)


def test_modules_stand_in_import_order_with_the_entry_last() -> None:
    names = [name for name, _, _ in bundled().modules]

    assert names == ["tools", "work", "entry"]


def test_the_file_begins_with_the_preamble_and_the_docstring_of_the_entry_as_it_stands() -> None:
    text = bundled().text

    assert text.startswith('# preamble\nr"""Starts \\work, "quoted"."""\n')
    assert ast.get_docstring(ast.parse(text)) == 'Starts \\work, "quoted".'


def test_comments_and_docstrings_survive() -> None:
    text = bundled().text

    expected = [
        "# Tools, and why.\n#\n# Two paragraphs.\n",
        "# A comment above a constant.\nLIMIT = 3  # and one behind it\n",
        '    """Holds a name."""\n',
        "  # the field's own comment\n",
        "        # Inside a function.\n",
        "    import torch as th  # heavy, so it waits\n",
    ]
    assert [part for part in expected if part not in text] == []


def test_imports_are_made_once_at_the_top_and_none_of_ours_is_left() -> None:
    tree = ast.parse(bundled().text)

    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]

    assert [ast.unparse(node) for node in imports] == [
        "import json",
        "import math",
        "from dataclasses import dataclass, field",
    ]
    assert "podproof" not in bundled().text


def test_the_module_map_points_at_the_lines_of_each_module() -> None:
    made = bundled(PLAN_JSON="[\n1,\n2]")

    lines = made.text.splitlines()

    parts = {name: "\n".join(lines[first - 1 : last]) for name, first, last in made.modules}
    assert parts["tools"].startswith("# ---------- tools ---")
    assert parts["tools"].endswith("return math.isfinite(LIMIT)")
    assert "def work(" in parts["work"]
    assert parts["entry"].endswith("raise SystemExit(work(PLAN_JSON))")


def test_lines_of_a_module_keep_their_distances() -> None:
    made = bundled()

    in_bundle = made.text.splitlines().index("class Tool:") - made.text.splitlines().index(
        "        # Inside a function."
    )
    in_module = TOOLS.splitlines().index("class Tool:") - TOOLS.splitlines().index(
        "        # Inside a function."
    )

    assert in_bundle == in_module


def test_each_constant_becomes_a_string_where_it_was_assigned() -> None:
    made = bundled(PLAN_JSON='{"a": 1}', TITLE="it's")

    assert 'PLAN_JSON = r"""{"a": 1}"""\n' in made.text
    assert 'TITLE = r"""it\'s"""\n' in made.text


@pytest.mark.parametrize("odd", ["\x0c", "\x1c", "\u2028", "\x85"])
def test_characters_that_end_a_line_elsewhere_do_not_shift_the_cut(odd: str) -> None:
    tools = TOOLS.replace("# A comment above", f"# A comment{odd} above")

    made = bundled({**GOOD, "tools": tools})

    assert f"# A comment{odd} above a constant.\nLIMIT = 3" in made.text
    assert "class Tool:" in made.text


def test_the_same_modules_in_another_order_give_the_same_file() -> None:
    assert bundled(dict(reversed(GOOD.items()))) == bundled()


# What is refused. 1: our own modules only as `from podproof.runtime.x import name`, at the top.


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("import podproof.runtime.tools", "imports the module podproof.runtime.tools"),
        ("from podproof.runtime import tools", "imports from podproof.runtime"),
        ("from podproof.compiler.ir import Run", "imports from podproof.compiler.ir"),
        ("from .tools import Tool", "imports relatively"),
        ("from podproof.runtime.tools import Tool as T", "imports Tool as another name"),
        ("from podproof.runtime.tools import *", "imports * as another name"),
        ("import numpy as np", "imports numpy as another name"),
        ("from __future__ import annotations", "would change how every other module is compiled"),
    ],
)
def test_an_import_of_the_wrong_form_is_refused_by_line(line: str, what: str) -> None:
    refused = refusals(work=f'"""Work."""\n{line}\n\n\ndef work(text: str) -> str: ...\n')

    assert refused["work.py:2"] == what


def test_an_import_of_ours_inside_a_function_is_refused() -> None:
    inside = "    from podproof.runtime.tools import Tool\n    return str(Tool)\n"

    refused = refusals(work=f"def work(text: str) -> str:\n{inside}")

    assert refused == {"work.py:2": "imports our own module inside a function"}


@pytest.mark.parametrize("module", ["boot", "nothing", "tools.inner"])
def test_an_import_of_what_does_not_ride_along_is_refused_by_the_module_that_asks(
    module: str,
) -> None:
    refused = refusals(work=f"from podproof.runtime.{module} import name\n")

    assert refused == {
        "work": f"imports podproof.runtime.{module}, which cannot ride in the script"
    }


# 2: every name means the same everywhere.


@pytest.mark.parametrize(
    "line",
    [
        "LIMIT = 4",
        "LIMIT: int = 4",
        "A, (B, LIMIT) = 1, (2, 3)",
        "class LIMIT: ...",
        "def LIMIT() -> None: ...",
        "from errno import LIMIT",
    ],
)
def test_a_name_with_two_owners_is_refused_with_both(line: str) -> None:
    refused = refusals(work=WORK.replace(", Tool\n", ", Tool\n" + line + "\n"))

    assert refused["work.LIMIT"].endswith("and by module tools too")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("from pickle import dumps, dataclass", "dataclass"),
        ("from time import math", "math"),
        ("def print() -> None: ...", "print"),
    ],
)
def test_a_name_that_hides_an_import_or_a_builtin_is_refused(line: str, name: str) -> None:
    refused = refusals(work=f"{WORK}\n{line}\n")

    assert f"work.{name}" in refused


def test_the_same_import_in_two_modules_is_no_conflict() -> None:
    twice = WORK.replace("import json\n", "import json\nfrom dataclasses import dataclass\n")

    assert "from dataclasses import dataclass, field" in bundled({**GOOD, "work": twice}).text


# 3: no circles.


def test_a_circle_is_refused_with_its_way_round() -> None:
    refused = refusals(tools="from podproof.runtime.work import work\n")

    assert refused == {"work": "imports itself: work -> tools -> work"}


# 4: importing does nothing.


@pytest.mark.parametrize(
    "statement",
    [
        "print(LIMIT)",
        "for i in (): pass",
        "if LIMIT: X = 1",
        "with open('x') as f: pass",
        "try:\n    import a\nexcept ImportError:\n    a = None",
        "del LIMIT",
        "LIMIT += 1",
        "assert LIMIT",
        '"a string that is no docstring"',
        "3",
    ],
)
def test_a_statement_that_does_something_is_refused_by_line(statement: str) -> None:
    refused = refusals(tools=f"{TOOLS}\n\n{statement}\n")

    line = len(TOOLS.splitlines()) + 3
    assert refused[f"tools.py:{line}"] == "does something when imported"


def test_the_file_and_the_name_of_a_module_are_not_for_reading() -> None:
    refused = refusals(tools="HERE = __file__\nNAME = __name__\n")

    assert refused["tools.py:1"] == "reads __file__, which is another one in the script"
    assert refused["tools.py:2"] == "reads __name__, which is another one in the script"


def test_only_the_entry_may_ask_whether_it_was_started() -> None:
    refused = refusals(work=f'{WORK}\nif __name__ == "__main__":\n    work("")\n')

    assert list(refused.values()) == ["reads __name__, which is another one in the script"]


@pytest.mark.parametrize("line", ["import json; X = 1", "X = 1; import json"])
def test_a_statement_beside_an_import_is_refused_since_lines_are_cut(line: str) -> None:
    assert "shares a line with the statement before" in refusals(work=line).values()


def test_a_constant_that_the_entry_does_not_assign_is_refused() -> None:
    with pytest.raises(NotBundleable) as refused:
        bundled(PLAN="{}")

    assert [problem.where for problem in refused.value.problems] == ["entry.PLAN"]


def test_text_that_is_no_python_is_refused_by_line() -> None:
    refused = refusals(work="x = 1\ndef work(:\n")

    assert list(refused) == ["work.py:2"]


def test_every_broken_rule_is_told_at_once() -> None:
    refused = refusals(tools=f"{TOOLS}\nprint(1)\n", work="LIMIT = 1\nX = __file__\n" + WORK)

    assert len(refused) >= 3


# The literal that carries the plan.


@given(st.text(st.characters(), max_size=60))
@example('"""')
@example('"')
@example("\\")
@example('ends with a quote"')
@example("\r\n and \r")
@example("\0")
@example("\ud800")
@example("{% x %} {{ y }} ${z} $(id)")
@example("\x0c\u2028'''\"\"\"\\N{DASH}")
def test_any_text_comes_back_out_of_its_literal(text: str) -> None:
    assert ast.literal_eval(text_literal(text)) == text


@given(st.text(st.characters(), max_size=60))
@example("'; import os; '")
def test_a_literal_is_one_constant_and_nothing_else(text: str) -> None:
    (statement,) = ast.parse(f"X = {text_literal(text)}").body

    assert isinstance(statement, ast.Assign)
    assert isinstance(statement.value, ast.Constant)


def test_json_of_many_lines_stays_readable() -> None:
    text = json.dumps({"a": "it's", "b": [1, 2]}, indent=2)

    assert text_literal(text) == f'r"""{text}"""'
