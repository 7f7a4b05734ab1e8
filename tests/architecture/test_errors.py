"""Errors: one tree, each with an id, an exit code and a section in the reference."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import podproof
from podproof.runtime import boot, errors
from podproof.runtime.errors import BadData, PodproofError, Problem

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
MODULES = [
    module.name
    for module in pkgutil.walk_packages(podproof.__path__, "podproof.")
    if module.name.endswith(".errors")
]


def tree(kind: type[PodproofError]) -> Iterator[type[PodproofError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from tree(below)


for name in MODULES:
    importlib.import_module(name)
CLASSES = sorted(
    (kind for kind in tree(PodproofError) if kind.__module__.startswith("podproof.")),
    key=lambda kind: kind.__name__,
)


def test_every_package_with_errors_is_looked_at() -> None:
    assert {name.split(".")[1] for name in MODULES} == {
        "compiler",
        "harness",
        "launcher",
        "monitor",
        "runtime",
    }


def test_every_error_has_an_id_of_its_own() -> None:
    assert len({kind.error_id for kind in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_is_called_by_its_id_in_the_reference_with_its_exit_code(
    kind: type[PodproofError],
) -> None:
    row = f"| [{kind.error_id}](#{kind.error_id}) | `{kind.__name__}` | {kind.exit_code} |"

    assert row in PAGE
    assert f"\n## {kind.error_id}\n" in PAGE
    assert kind.__doc__


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_is_drawn_in_the_tree_with_its_exit_code(kind: type[PodproofError]) -> None:
    assert re.search(rf"\b{kind.__name__} +{kind.exit_code}\b", errors.__doc__ or "")


def test_the_reference_has_no_error_that_does_not_exist() -> None:
    sections = set(re.findall(r"(?m)^## ([a-z-]+)$", PAGE))

    assert sections == {kind.error_id for kind in CLASSES}


def test_the_exit_codes_of_a_script_are_those_the_boot_program_knows() -> None:
    rows = re.findall(r"(?m)^\| (\d+) \| .* \| (no|yes)[^|]*\|$", PAGE)
    without_restart = {int(code) for code, again in rows if again == "no"}

    assert {int(code) for code, _ in rows} == {0, 1, 2, 3, 4, 5, 6, 7, 143}
    assert set(boot.CODES_WITHOUT_RESTART) == without_restart


def test_an_error_tells_every_problem_with_its_way_out() -> None:
    error = BadData(Problem("a.jsonl:3", "not JSON", "mend it"), "no rows at all")

    assert str(error) == "a.jsonl:3: not JSON\n  way out: mend it\nbad-data: no rows at all"
    assert [problem.where for problem in error.problems] == ["a.jsonl:3", "bad-data"]
