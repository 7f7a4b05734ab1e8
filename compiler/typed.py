"""From the plain values of a composed config to a typed Config, and what of them cannot be read."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from podproof.compiler.bounds import BOUNDS
from podproof.compiler.keys import did_you_mean
from podproof.compiler.schema import METHODS, SECTIONS, Config, plain
from podproof.runtime.errors import Problem
from podproof.runtime.reader import read_section

# How runtime/reader.py words a value that is none of an enumeration.
_ONE_OF = re.compile(r"must be one of (?P<choices>.+), got (?P<got>.*)")


def typed(container: dict[str, Any], problems: list[Problem]) -> Config:
    """Return the config as typed values; what cannot be read is a problem, and its default."""
    values = dict(container)
    raw_method = values.pop("method", None)
    method = str(raw_method.get("name")) if isinstance(raw_method, Mapping) else "sft"
    if method not in METHODS:
        choices = ", ".join(METHODS)
        what = f"must be one of {choices}, got {method!r}"
        problems.append(Problem("method.name", what, _of_the_right_type("method.name", what)))
        method, raw_method = "sft", plain(METHODS["sft"]())
    values["method"] = raw_method
    sections = {
        key: read_or_default(kind, values.pop(key, {}), key, problems, method)
        for key, kind in {**SECTIONS, "method": METHODS[method]}.items()
    }
    head = read_or_default(_Head, values, "", problems, method)
    return Config(name=head.name, seed=head.seed, **sections)


def read_or_default(
    kind: type[Any], value: Any, where: str, problems: list[Problem], method: str
) -> Any:
    """Return one section; what of it cannot be read is a problem, and its default."""
    found: list[Problem] = []
    section = read_section(kind, value, where, found)
    problems += [_with_way_out(problem, method) for problem in found]
    if not found:
        return section
    repaired = plain(kind())
    for key in repaired:
        attempt = {**repaired, key: value.get(key) if isinstance(value, Mapping) else None}
        ignored: list[Problem] = []
        read_section(kind, attempt, where, ignored)
        repaired = repaired if ignored else attempt
    return read_section(kind, repaired, where, [])


@dataclass(frozen=True)
class _Head:
    """The two fields that stand outside every section."""

    name: str = "run"
    seed: int = 42


def _with_way_out(problem: Problem, method: str) -> Problem:
    where = problem.where.lstrip(".")
    if problem.what == "unknown field":
        return Problem(where, "no such key", did_you_mean(where, method))
    if problem.what == "missing field":
        # Hydra's ~KEY takes a key away; a config of ours keeps them all.
        return Problem(where, "was taken away, and every config needs it", f"write {where}=VALUE")
    return Problem(where, problem.what, problem.way_out or _of_the_right_type(where, problem.what))


def _of_the_right_type(key: str, what: str) -> str:
    """Return the way out for a value of the wrong type, or none of those there are."""
    one_of = _ONE_OF.match(what)
    if one_of is not None:
        choices = one_of["choices"].split(", ")
        near = difflib.get_close_matches(one_of["got"].strip("'"), choices, n=1, cutoff=0.4)
        return f"did you mean {key}={near[0]}?" if near else f"set {key}={choices[0]}"
    if key in BOUNDS:
        return f"set {key}={BOUNDS[key].usual}"
    if what.startswith("must be text"):
        return "write it in quotes"
    return "docs/reference/config.md has every key with its type"
