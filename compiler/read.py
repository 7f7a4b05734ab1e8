"""From what a person typed to a typed Config: compose with Hydra, then read, then check.

Hydra stops at the first thing it does not like. So unknown keys are looked for before it
composes and after, types are read by our own reader, and everything wrong is raised at once.
"""

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from podproof.compiler.errors import BadConfig
from podproof.compiler.keys import did_you_mean, schema_at, unknown_key
from podproof.compiler.rules import violations
from podproof.compiler.schema import METHODS, SECTIONS, Config, plain, register_defaults
from podproof.runtime.errors import Problem
from podproof.runtime.plan import read_section

CONFIG_MODULE = "podproof.conf"
CONFIG_NAME = "config"


@dataclass(frozen=True)
class Request:
    """What a person typed: Hydra overrides, and a folder of their own configs if they have one."""

    overrides: tuple[str, ...]
    config_dir: Path | None = None


def read(request: Request) -> Config:
    """Return the checked Config; raise BadConfig with every problem found.

    Problems come from four places, all gathered: overrides that do not parse or name no key,
    unknown keys in YAML files, values of the wrong type, and the rules.
    """
    register_defaults()
    _check_config_dir(request.config_dir)
    with _hydra_at_rest(), initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        overrides, problems = _known_overrides(request)
        composed = _compose([*_search_path(request), *overrides])
    return config_from(composed, problems)


def config_from(composed: DictConfig, problems: Sequence[Problem] = ()) -> Config:
    """Return the typed, checked Config of a composed one; raise BadConfig with every problem."""
    found = [*problems, *_foreign_interpolations(composed)]
    container = {} if found and _has_resolver(found) else _resolved(composed)
    if not container:
        raise BadConfig(*found)
    config = _typed(container, found)
    # Rules run on whatever could be read, so that one command lists wrong types and broken rules.
    flagged = {problem.where for problem in found}
    found += [problem for problem in violations(config) if problem.where not in flagged]
    if found:
        raise BadConfig(*sorted(set(found)))
    return config


def sweep(request: Request, *, sweep_dir: Path, task: Callable[[Config], float | None]) -> None:
    """Run `task` once per job of a sweep, through Hydra's own multirun and whatever sweeper it has.

    The task's return value is the objective that Hydra's sweepers minimise.
    """
    register_defaults()
    _check_config_dir(request.config_dir)
    with _hydra_at_rest(), initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        overrides, problems = _known_overrides(request)
    if problems:
        raise BadConfig(*problems)

    @hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name=CONFIG_NAME)
    def run_job(composed: DictConfig) -> float | None:
        return task(config_from(composed))

    typed = [*_search_path(request), f"hydra.sweep.dir={_quoted(sweep_dir)}", *overrides]
    arguments, sys.argv = sys.argv, ["podproof", "--multirun", *typed]
    try:
        run_job()
    finally:
        sys.argv = arguments


class _hydra_at_rest:  # noqa: N801 - reads as a phrase in a with statement
    """Clear Hydra's process-wide state before and after, so that calls do not see each other."""

    def __enter__(self) -> None:
        GlobalHydra.instance().clear()

    def __exit__(self, *_: object) -> None:
        GlobalHydra.instance().clear()


def _check_config_dir(config_dir: Path | None) -> None:
    if config_dir is not None and not config_dir.is_dir():
        what = f"{config_dir} is not a folder"
        raise BadConfig(Problem("--config-dir", what, "create it, or fix the path"))


def _search_path(request: Request) -> list[str]:
    if request.config_dir is None:
        return []
    return [f"hydra.searchpath=[{_quoted(f'file://{request.config_dir.resolve()}')}]"]


def _quoted(value: object) -> str:
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _known_overrides(request: Request) -> tuple[list[str], list[Problem]]:
    """Return the overrides Hydra can take, and a problem for each of the others."""
    parsed, problems = _parsed(request.overrides)
    groups = [item for item in parsed if _is_group_choice(item)]
    method = _chosen_method([*_search_path(request), *_first_choices(groups)])
    known = [item.input_line for item in groups]
    for item in parsed:
        if item in groups:
            continue
        problem = unknown_key(str(item.key_or_group), method)
        if problem is None:
            known.append(_forced_if_open(item, method))
        else:
            problems.append(problem)
    return [line for line in known if line is not None], problems


def _parsed(overrides: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    parser = OverridesParser.create()
    parsed: list[Override] = []
    problems = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            reason = str(error).splitlines()[0]
            way_out = "quote the value as Hydra does: key='...'; on a shell: \"key='...'\""
            problems.append(Problem(text, f"not an override: {reason}", way_out))
    return parsed, problems


def _is_group_choice(override: Override) -> bool:
    key = str(override.key_or_group)
    return key.startswith("hydra") or (
        "." not in key and key in {*SECTIONS, "method", "experiment"}
    )


def _first_choices(groups: Sequence[Override]) -> list[str]:
    """Return the group choices with a sweep replaced by its first alternative."""
    lines = []
    for item in groups:
        if item.is_sweep_override():
            first = next(iter(item.sweep_string_iterator()))
            lines.append(f"{item.get_key_element()}={first}")
        elif not str(item.key_or_group).startswith("hydra"):
            lines.append(str(item.input_line))
    return lines


def _chosen_method(overrides: list[str]) -> str:
    composed = _compose(overrides)
    return str(OmegaConf.select(composed, "method.name", default="sft"))


def _compose(overrides: list[str]) -> DictConfig:
    try:
        return compose(CONFIG_NAME, overrides=overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise BadConfig(_composition_problem(error)) from error


def _composition_problem(error: Exception) -> Problem:
    """Return Hydra's complaint in one line; for an unknown choice, the nearest one and all."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        choices = list(error.options or ())
        near = difflib.get_close_matches(option, choices, n=1)
        way_out = f"did you mean {near[0]}? " if near else ""
        listed = f"the choices are {', '.join(choices)}"
        return Problem(group or "config", f"there is no {option!r}", way_out + listed)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return Problem("config", " ".join(lines), "`podproof compile --help` shows the syntax")


def _forced_if_open(override: Override, method: str) -> str | None:
    """Return the override, forced with `++` where its mapping takes any key (pod.env, extra)."""
    line = str(override.input_line)
    is_open = schema_at(str(override.key_or_group), method) is Any
    return f"++{line}" if is_open and not line.startswith(("+", "~")) else line


def _foreign_interpolations(composed: DictConfig) -> list[Problem]:
    """Refuse `${resolver:...}`: it reads the machine, and the script must not depend on it."""
    return [
        Problem(
            key,
            f"{text!r} asks a resolver, which would read this machine into the script",
            "write the value itself, refer to another key, or escape it as \\${...}",
        )
        for key, text in _raw_texts(composed, "")
        if "${" in text.replace("\\${", "") and ":" in text.split("${", 1)[1]
    ]


def _has_resolver(problems: Sequence[Problem]) -> bool:
    return any("resolver" in problem.what for problem in problems)


def _raw_texts(node: DictConfig | ListConfig, prefix: str) -> Iterator[tuple[str, str]]:
    raw = OmegaConf.to_container(node, resolve=False)
    yield from _texts_in(raw, prefix)


def _texts_in(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts_in(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts_in(item, f"{where}[{index}]")


def _resolved(composed: DictConfig) -> dict[str, Any]:
    try:
        container = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        way_out = "refer to a key that exists, or escape the dollar: \\${...}"
        key = str(getattr(error, "full_key", "") or "config")
        raise BadConfig(Problem(key, str(error).splitlines()[0], way_out)) from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _typed(container: dict[str, Any], problems: list[Problem]) -> Config:
    """Return the config as typed values; what cannot be read is a problem, and its default."""
    values = dict(container)
    raw_method = values.pop("method", None)
    method = str(raw_method.get("name")) if isinstance(raw_method, Mapping) else "sft"
    for key, text in _texts_in(values, ""):
        if text == "???":
            problems.append(Problem(key, "needs a value", f"add {key}=... to the command"))
    if method not in METHODS:
        choices = ", ".join(METHODS)
        problems.append(Problem("method.name", f"must be one of {choices}, got {method!r}"))
        method, raw_method = "sft", plain(METHODS["sft"]())
    values["method"] = raw_method
    sections = {
        key: _read_or_default(kind, values.pop(key, {}), key, problems, method)
        for key, kind in {**SECTIONS, "method": METHODS[method]}.items()
    }
    head = _read_or_default(_Head, values, "", problems, method)
    return Config(name=head.name, seed=head.seed, **sections)


def _read_or_default(
    kind: type[Any], value: Any, where: str, problems: list[Problem], method: str
) -> Any:
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
    if problem.what != "unknown field":
        return Problem(where, problem.what, problem.way_out)
    return Problem(where, "no such key", did_you_mean(where, method))
