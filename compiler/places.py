"""Where a key of a config was set: the file and line, or the override that was typed.

Asked only when something is wrong. The files are read again as YAML nodes, which know their lines;
what Hydra composed does not.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from podproof.compiler.credentials import credential_in
from podproof.runtime.errors import Problem

_PLACE = re.compile(r"(?P<file>[^:\n]+):(?P<line>[1-9]\d*)")


@dataclass(frozen=True)
class Source:
    """One file that was composed, and the dotted key its content stands under ("" at the top)."""

    path: Path
    package: str


@dataclass(frozen=True)
class LocatedProblem(Problem):
    """A problem and where it was written: `file` and `line` from 1, or the n-th override typed.

    Without `is_set` nobody set the key, and the place is where it would go.

    >>> print(LocatedProblem("seed", "must be at least 0, got -1", file="a.yaml", line=3))
    seed: must be at least 0, got -1
      set in a.yaml:3
    """

    file: str = ""
    line: int = 0
    override: int = 0
    override_text: str = ""
    is_set: bool = True

    @property
    def place(self) -> str:
        """Return the place in words."""
        if self.override:
            return f'set by override {self.override}: "{self.override_text}"'
        there = f"{self.file}:{self.line}"
        return f"set in {there}" if self.is_set else f"not set; it would go into {there}"

    def __str__(self) -> str:
        head, *rest = super().__str__().split("\n")
        return "\n".join([head, f"  {self.place}", *rest])


def located(
    problems: Sequence[Problem], sources: Sequence[Source], typed: Sequence[tuple[str, str]]
) -> tuple[Problem, ...]:
    """Return the problems, each with its place where one is found.

    `sources` stand in the order they were merged, the last one winning; `typed` has the key and
    the text of each override, in the order typed.
    """
    files = tuple(_nodes(sources))
    return tuple(_with_place(problem, files, typed) for problem in problems)


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return each problem once, by key; those that know their place sort among the others."""
    return sorted(set(problems), key=lambda item: (item.where, item.what, item.way_out))


def is_about(problem: Problem, flagged: set[str]) -> bool:
    """Tell whether a rule speaks of a value that could not be read, its section, or its parts."""
    where = problem.where
    return any(f"{key}.".startswith(f"{where}.") or where.startswith(f"{key}.") for key in flagged)


def problem_to_dict(problem: Problem) -> dict[str, Any]:
    """Return a problem as JSON values; file, line and override are null where they do not apply.

    A `where` that is itself a place, such as rows.jsonl:3, is taken apart.
    """
    found = {"where": problem.where, "what": problem.what, "way_out": problem.way_out}
    file, line = place_of(problem)
    override = problem.override or None if isinstance(problem, LocatedProblem) else None
    return {**found, "file": file, "line": line, "override": override}


def place_of(problem: Problem) -> tuple[str | None, int | None]:
    """Return file and line of a problem, from its place or from a `where` that is one."""
    if isinstance(problem, LocatedProblem):
        return problem.file or None, problem.line or None
    match = _PLACE.fullmatch(problem.where)
    return (match["file"], int(match["line"])) if match else (None, None)


def shown_path(path: Path) -> str:
    """Return a path as a person here would write it: relative when it lies below this folder."""
    whole, here = path.resolve(), Path.cwd().resolve()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)


_Files = tuple[tuple[Source, yaml.Node], ...]


def _nodes(sources: Sequence[Source]) -> Iterator[tuple[Source, yaml.Node]]:
    for source in sources:
        try:
            node = yaml.compose(source.path.read_text(encoding="utf-8"), yaml.SafeLoader)
        except (OSError, ValueError, yaml.YAMLError):
            continue  # composing it failed of the same, and that problem knows its line
        if node is not None:
            yield source, node


def _with_place(problem: Problem, files: _Files, typed: Sequence[tuple[str, str]]) -> Problem:
    if isinstance(problem, LocatedProblem) or _PLACE.fullmatch(problem.where):
        return problem
    key = problem.where
    number = _override_number(typed, key)
    if number:
        return _by_override(problem, number, typed)
    source, line, is_set = _exact(key, files) or _around(key, files) or (None, 0, False)
    if source is None:
        return problem
    head, file = (problem.where, problem.what, problem.way_out), shown_path(source.path)
    if not is_set and Path(file).is_absolute():
        return problem  # nothing is to go into a file that ships with podproof
    return LocatedProblem(*head, file=file, line=line, is_set=is_set)


def _override_number(typed: Sequence[tuple[str, str]], key: str) -> int | None:
    """Return the number, from 1, of the override that set a key, something above it or in it.

    The last one typed wins; one that could not be read stands for itself.
    """
    numbers = [
        number
        for number, (name, text) in enumerate(typed, 1)
        if text == key or _is_below(key, name) or _is_below(name, key)
    ]
    return numbers[-1] if numbers else None


def _by_override(problem: Problem, number: int, typed: Sequence[tuple[str, str]]) -> Problem:
    text = _without_value(*typed[number - 1])
    head = (problem.where, problem.what, problem.way_out)
    return LocatedProblem(*head, override=number, override_text=text)


def _without_value(key: str, text: str) -> str:
    """Return what was typed, without the value where that may be a credential."""
    name, value = key.rpartition(".")[2], text.partition("=")[2]
    is_private = key.startswith(("pod.env", "pod.secrets")) or credential_in(name, value)
    return f"{text.partition('=')[0]}=***" if is_private and value else text


def _is_below(key: str, above: str) -> bool:
    """Tell whether a key is another one, or a part of it.

    >>> _is_below("adapter.target_modules[1]", "adapter.target_modules")
    True
    """
    return above != "" and (key == above or key.startswith((f"{above}.", f"{above}[")))


_Found = tuple[Source, int, bool] | None


def _exact(key: str, files: _Files) -> _Found:
    """Return where a key is set, the last file first; a broken file is where `config` is."""
    for source, node in reversed(files):
        parts = _parts_within(key, source.package)
        line = _line(node, parts) if parts else None
        line = line or _line_of_choice(node, key)
        if line is not None:
            return source, line, True
    return None


def _around(key: str, files: _Files) -> _Found:
    """Return where a key that nobody set would go: the nearest mapping above it, last file first.

    At worst that is the first line of the experiment.
    """
    parts = _parts(key)
    for length in range(len(parts) - 1, 0, -1):
        for source, node in reversed(files):
            above = _parts_within(".".join(parts[:length]), source.package)
            line = _line(node, above) if above else None
            if line is not None:
                return source, line, False
    experiments = [source for source, _ in files if _is_experiment(source)]
    return (experiments[-1], 1, key == "config") if experiments else None


def _is_experiment(source: Source) -> bool:
    return "experiment" in source.path.parent.parts


def _parts(key: str) -> list[str]:
    return re.sub(r"\[(\d+)\]", r".\1", key).split(".")


def _parts_within(key: str, package: str) -> list[str]:
    """Return what is left of a key inside a file whose content stands under `package`."""
    if not package:
        return _parts(key)
    return _parts(key[len(package) + 1 :]) if _is_below(key, package) and key != package else []


def _line(node: yaml.Node, parts: Sequence[str]) -> int | None:
    """Return the line, from 1, of the key at the end of a path of keys and list positions."""
    line = None
    for part in parts:
        found = _child(node, part)
        if found is None:
            return None
        line, node = found
    return line


def _child(node: yaml.Node, part: str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        item = node.value[int(part)]
        return item.start_mark.line + 1, item
    return None


def _line_of_choice(node: yaml.Node, group: str) -> int | None:
    """Return the line of a defaults list on which a group is chosen."""
    defaults = _child(node, "defaults")
    if defaults is None or not isinstance(defaults[1], yaml.SequenceNode):
        return None
    for item in defaults[1].value:
        pairs = item.value if isinstance(item, yaml.MappingNode) else []
        names = (str(key.value).split("@")[0].split("/")[-1].split()[-1] for key, _ in pairs)
        if group in names:
            return int(item.start_mark.line) + 1
    return None
