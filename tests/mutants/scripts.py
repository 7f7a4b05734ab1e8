"""A compiled script whose statements can be exchanged, one at a time, and loaded as a module.

Compiling the whole text for every mutant would take longer than asking the gates. So the script is
parsed once, each of its statements is compiled once, and a mutant compiles only its own.
"""

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Any

from podproof.compiler.ir import PodScript
from podproof.harness.embedded import EMBEDDED_NAME
from tests.harness.conftest import script_of
from tests.mutants.operators import Mutant, mutants_of

MODULES = (
    "readings",
    "scores",
    "scorer",
    "trend",
    "stopping",
    "hooks",
    "callback",
    "evaluation_body",
)


@dataclass(frozen=True)
class MutableScript:
    """A script, its statements, the code of each, and where the statements of each module begin."""

    script: PodScript
    statements: tuple[ast.stmt, ...]
    codes: tuple[CodeType, ...]

    def of_module(self, name: str) -> tuple[int, list[ast.stmt]]:
        """Return the number of a module's first statement, and its statements."""
        first, last = next((a, b) for module, a, b in self.script.modules if module == name)
        inside = [
            number
            for number, statement in enumerate(self.statements)
            if first <= statement.lineno <= last
        ]
        return inside[0], list(self.statements[inside[0] : inside[-1] + 1])

    def mutants(self) -> list[Mutant]:
        """Return every mutant of the modules that score, call back and stop."""
        return [mutant for name in MODULES for mutant in mutants_of(name, self.of_module(name)[1])]

    def text_with(self, mutant: Mutant) -> str:
        """Return the script's text with the mutant's module, unparsed, in the place of its cut."""
        first, statements = self.of_module(mutant.module)
        statements[mutant.place] = mutant.statement
        lines = self.script.text.split("\n")
        start, end = next((a, b) for name, a, b in self.script.modules if name == mutant.module)
        unparsed = ast.unparse(ast.Module(statements, []))
        assert self.statements[first].lineno >= start
        return "\n".join([*lines[: start - 1], unparsed, *lines[end:]])

    @contextmanager
    def loaded(self, mutant: Mutant | None = None) -> Iterator[Any]:
        """Yield the script as a module, as `embedded` does, with the mutant in it if there is one.

        Raises whatever the mutant raises when it is loaded.
        """
        codes = list(self.codes)
        if mutant is not None:
            place = self.of_module(mutant.module)[0] + mutant.place
            codes[place] = _compiled(mutant.statement)
        module = ModuleType(EMBEDDED_NAME)
        sys.modules[EMBEDDED_NAME] = module
        try:
            for code in codes:
                exec(code, module.__dict__)  # noqa: S102 - our own bundle, as in embedded.py
            yield module
        finally:
            sys.modules.pop(EMBEDDED_NAME, None)


def mutable(*overrides: str) -> MutableScript:
    """Return the script of a config, ready to be mutated."""
    script = script_of(*overrides)
    statements = ast.parse(script.text).body
    return MutableScript(script, tuple(statements), tuple(map(_compiled, statements)))


def _compiled(statement: ast.stmt) -> CodeType:
    return compile(ast.Module([statement], []), "pod_script.py", "exec", dont_inherit=True)
