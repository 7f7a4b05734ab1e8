"""From what a person typed to a typed Config: compose with Hydra, then read, then check.

Hydra stops at the first thing it does not like. So unknown keys are looked for before it
composes and after, types are read by our own reader, and everything wrong is raised at once.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import GrammarParseError, OmegaConfBaseException
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser
from omegaconf.grammar_parser import parse

from podproof.compiler.errors import BadConfig
from podproof.compiler.folders import as_group, config_file, quoted
from podproof.compiler.keys import is_key, schema_at, unknown_key
from podproof.compiler.places import (
    LocatedProblem,
    Source,
    in_order,
    is_about,
    located,
    shown_path,
)
from podproof.compiler.rules import violations
from podproof.compiler.schema import METHODS, SECTIONS, Config, register_defaults
from podproof.compiler.typed import typed
from podproof.runtime.errors import Problem

CONFIG_MODULE = "podproof.conf"
CONFIG_NAME = "config"

_QUOTED = "mend the line; text with a colon, a bracket or a # needs quotes"
_UNESCAPED = "refer to a key that exists, or escape the dollar: \\${...}"


@dataclass(frozen=True)
class Request:
    """What a person typed: Hydra overrides, and a folder of their own configs if they have one.

    `experiment_dir` is a folder of experiments by any name: it stands for the group `experiment`.
    """

    overrides: tuple[str, ...]
    config_dir: Path | None = None
    experiment_dir: Path | None = None


def read(request: Request) -> Config:
    """Return the checked Config; raise BadConfig with every problem found.

    Problems come from four places, all gathered: overrides that do not parse or name no key,
    unknown keys in YAML files, values of the wrong type, and the rules. When the chosen configs
    do not compose there are no values, and the last two are left for the next time.
    """
    with _hydra(request):
        try:
            return _read(request)
        except BadConfig as error:
            raise BadConfig(*_located(request, error.problems)) from error.__cause__


def locate(request: Request, problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Return the problems, those about a key with the file and line or override that set it."""
    about_keys = [item for item in problems if is_key(item.where)]
    if not about_keys:
        return tuple(problems)
    with _hydra(request):
        places = dict(zip(about_keys, _located(request, about_keys), strict=True))
    return tuple(places.get(item, item) for item in problems)


def _read(request: Request) -> Config:
    overrides, problems = _known_overrides(request)
    composed, uncomposed = _compose(overrides)
    problems += [*uncomposed, *_resolving_choices(request, overrides)]
    if composed is None:
        raise BadConfig(*in_order(problems))
    return config_from(composed, problems)


def config_from(composed: DictConfig, problems: Sequence[Problem] = ()) -> Config:
    """Return the typed, checked Config of a composed one; raise BadConfig with every problem."""
    values, found, unread = _values(composed)
    wrong: list[Problem] = []
    config = typed(values, wrong)
    found += [*problems, *(problem for problem in wrong if problem.where not in unread)]
    # Rules run on whatever could be read, so that one command lists wrong types and broken rules.
    flagged = unread | {problem.where for problem in found}
    found += [problem for problem in violations(config) if not is_about(problem, flagged)]
    if found:
        raise BadConfig(*in_order(found))
    return config


def sweep(request: Request, *, sweep_dir: Path, task: Callable[[Config], float | None]) -> None:
    """Run `task` once per job of a sweep, through Hydra's own multirun and whatever sweeper it has.

    The task's return value is the objective that Hydra's sweepers minimise. Raise BadConfig for
    overrides that name no key, before any job runs, and for a job whose config is bad; what
    becomes of the other jobs then is the sweeper's own choice.
    """
    with _hydra(request):
        overrides, problems = _known_overrides(request)
        if problems:
            raise BadConfig(*_located(request, in_order(problems)))
        lines = [f"hydra.sweep.dir={quoted(sweep_dir)}", *overrides]
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        try:
            hydra.multirun(CONFIG_NAME, lambda composed: task(config_from(composed)), lines)
        except (HydraException, OmegaConfBaseException) as error:
            raise BadConfig(_composition_problem(error)) from error


@contextmanager
def _hydra(request: Request) -> Iterator[None]:
    """Set Hydra up for one request and leave no trace of it: the user's files first, then ours."""
    register_defaults()
    if request.config_dir is not None and not request.config_dir.is_dir():
        what = f"{request.config_dir} is not a folder"
        raise BadConfig(Problem("--config-dir", what, "create it, or fix the path"))
    GlobalHydra.instance().clear()
    try:
        with (
            initialize_config_module(CONFIG_MODULE, version_base="1.3"),
            as_group(request.experiment_dir) as experiments,
        ):
            for folder in (request.config_dir, experiments):
                if folder is not None:
                    _look_first_in(folder)
            yield
    finally:
        GlobalHydra.instance().clear()


def _look_first_in(folder: Path) -> None:
    # `hydra.searchpath` would put it after our own files, and a name that both have would be ours.
    loader: Any = GlobalHydra.instance().config_loader()
    search_path = loader.get_search_path()
    anchor = search_path.get_path()[1].provider  # the first after Hydra's own
    search_path.prepend(str(folder), f"file://{folder.resolve()}", anchor=anchor)
    loader.repository.initialize_sources(search_path)


def _located(request: Request, problems: Sequence[Problem]) -> tuple[Problem, ...]:
    parsed, _ = _parsed(request.overrides)
    keys = {str(item.input_line): str(item.key_or_group) for item in parsed}
    typed = [(keys.get(text, ""), text) for text in request.overrides]
    return located(problems, tuple(_sources(request)), typed)


def _sources(request: Request) -> Iterator[Source]:
    """Yield every file the config was composed from, in the order they were merged."""
    overrides, _ = _known_overrides(request)
    for path, package in _chosen(overrides) or _named_experiment(overrides):
        file = config_file(path, request.config_dir, request.experiment_dir)
        if file is not None:
            yield Source(file, package)


def _chosen(overrides: list[str]) -> list[tuple[str, str]]:
    """Return path and package of each config of the defaults list; empty when it cannot be made."""
    loader = GlobalHydra.instance().config_loader()
    try:
        chosen = loader.compute_defaults_list(CONFIG_NAME, overrides, RunMode.RUN).defaults
    except Exception:  # the composition failed of the same, and its problem is on the list
        return []
    return [(str(item.config_path), item.package or "") for item in chosen]


def _named_experiment(overrides: list[str]) -> list[tuple[str, str]]:
    names = [
        line.partition("=")[2].strip("'\"") for line in overrides if line.startswith("experiment=")
    ]
    return [(f"experiment/{name}", "") for name in names]


def _known_overrides(request: Request) -> tuple[list[str], list[Problem]]:
    """Return the overrides Hydra can take, and a problem for each of the others."""
    parsed, problems = _parsed(request.overrides)
    groups = [item for item in parsed if _is_group_choice(item)]
    keys = [str(item.key_or_group) for item in parsed if item not in groups]
    methods = tuple(METHODS)
    if any(schema_at(key, method) is None for key in keys for method in methods):
        # Composing takes longer than everything else here, so only what depends on it asks for it.
        methods = _possible_methods(_first_choices(groups))
    known = []
    for item in parsed:
        key, line = str(item.key_or_group), str(item.input_line)
        if item in groups:
            problem = _resolver_problem(key, line)
            line = line if problem is None else ""
        elif any(schema_at(key, method) is not None for method in methods):
            problem = _broken_interpolation(key, item)
            line = _forced_if_open(item, methods[0]) if problem is None else ""
        else:
            problem = unknown_key(key, methods[0]) if key else Problem(line, "names no key")
            line = ""
        known += [line] if line else []
        problems += [problem] if problem is not None else []
    return known, problems


def _parsed(overrides: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    parser = OverridesParser.create()
    parsed: list[Override] = []
    problems = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except (HydraException, ValueError) as error:  # ValueError: a number of over 4,300 digits
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


def _possible_methods(choices: list[str]) -> tuple[str, ...]:
    """Return the chosen method; all of them when the choices do not compose."""
    composed, _ = _compose(choices)
    if composed is None:
        return tuple(METHODS)
    return (str(OmegaConf.select(composed, "method.name", default="sft")),)


def _compose(overrides: list[str]) -> tuple[DictConfig | None, list[Problem]]:
    try:
        return compose(CONFIG_NAME, overrides=overrides), []
    except Exception as error:  # Hydra lets through what YAML, the disk and its own parts raise
        return None, [_composition_problem(error)]


def _composition_problem(error: BaseException) -> Problem:
    """Return Hydra's complaint in one line; for an unknown choice, the nearest one and all."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        choices = GlobalHydra.instance().config_loader().get_group_options(group)
        near = difflib.get_close_matches(option, choices, n=1)
        way_out = f"did you mean {near[0]}? " if near else ""
        listed = f"the choices are {', '.join(choices)}" if choices else ""
        return Problem(group or "config", f"there is no {option!r}", way_out + listed)
    if error.__cause__ is not None and not str(error).strip():
        # Hydra wraps what OmegaConf said of a file, and with it the key that it was said about.
        return _composition_problem(error.__cause__)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        what, file = f"is not valid YAML: {error.problem}", shown_path(Path(mark.name))
        return LocatedProblem(file, what, _QUOTED, file=file, line=mark.line + 1)
    key = str(getattr(error, "full_key", None) or "config")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    what = " ".join(lines) if key == "config" else lines[0]
    if "Cannot merge DictConfig with ListConfig" in what:
        return Problem("config", "a file holds a list where keys belong", "write `key: value`")
    return Problem(key, what, "`podproof compile --help` shows the syntax")


def _forced_if_open(override: Override, method: str) -> str:
    """Return the override, forced with `++` where its mapping takes any key (pod.env, extra)."""
    line = str(override.input_line)
    kind = schema_at(str(override.key_or_group), method)
    is_open = kind is Any or get_origin(kind) is dict
    return f"++{line}" if is_open and not line.startswith(("+", "~")) else line


def _broken_interpolation(key: str, override: Override) -> Problem | None:
    """Refuse a `${` that begins nothing, by its key; Hydra would not say which one it was."""
    texts = (text for _, text in _texts_in(override.value(), key) if "${" in text)
    for text in texts:
        try:
            parse(text)
        except GrammarParseError as error:
            return Problem(key, f"{text!r} is no interpolation: {error}", _UNESCAPED)
    return None


def _resolving_choices(request: Request, overrides: list[str]) -> list[Problem]:
    """Refuse resolvers in the defaults lists of the user's own files; the others are ours."""
    if request.config_dir is None:
        return []
    problems = []
    for path, _ in _chosen(overrides):
        file = request.config_dir / f"{path}.yaml"
        if file.is_file():
            raw = OmegaConf.to_container(OmegaConf.load(file))
            defaults = raw.get("defaults") if isinstance(raw, dict) else None
            texts = (text for _, text in _texts_in(defaults, ""))
            problems += [_resolver_problem(f"{path}.yaml: defaults", text) for text in texts]
    return [problem for problem in problems if problem is not None]


def _texts_in(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts_in(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts_in(item, f"{where}[{index}]")


def _resolver_problem(key: str, text: str) -> Problem | None:
    """Refuse `${resolver:...}`: it reads the machine, and the script must not depend on it."""
    if "${" not in text or not _asks_resolver(text):
        return None
    return Problem(
        key,
        f"{text!r} asks a resolver, which would read this machine into the script",
        f"write the value itself; {_UNESCAPED}",
    )


def _asks_resolver(text: str) -> bool:
    """Ask OmegaConf's own grammar, since escapes and nesting decide what is an interpolation."""
    try:
        nodes = [parse(text)]
    except GrammarParseError:
        return False  # resolving it fails with a problem of its own
    for node in nodes:
        if isinstance(node, OmegaConfGrammarParser.InterpolationResolverContext):
            return True
        nodes += getattr(node, "children", None) or []
    return False


def _values(composed: DictConfig) -> tuple[dict[str, Any], list[Problem], set[str]]:
    """Return plain values, the problems of those that have none, and the keys left unread.

    With a single resolver anywhere nothing is interpolated, since one key may refer to another.
    """
    texts = _texts_in(OmegaConf.to_container(composed, resolve=False), "")
    asking = (_resolver_problem(key, text) for key, text in texts)
    leaves = _Leaves([problem for problem in asking if problem is not None])
    leaves.is_safe = not leaves.problems
    values = {str(key): leaves.value(composed, key, str(key)) for key in composed}
    return values, leaves.problems, leaves.unread


class _Leaves:
    """Reads a composed config value by value; a value that cannot be read becomes None."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        self.unread: set[str] = set()
        self.is_safe = True

    def value(self, node: DictConfig | ListConfig, key: Any, where: str) -> Any:
        if OmegaConf.is_missing(node, key):
            return self._unread(where, "needs a value", f"add {where}=... to the command")
        if OmegaConf.is_interpolation(node, key) and not self.is_safe:
            self.unread.add(where.partition("[")[0])
            return None
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            return self._unread(where, str(error).splitlines()[0], _UNESCAPED)
        return self._items(value, where)

    def _items(self, value: Any, where: str) -> Any:
        if isinstance(value, ListConfig):
            return [self.value(value, i, f"{where}[{i}]") for i in range(len(value))]
        if isinstance(value, DictConfig):
            return {str(name): self.value(value, name, f"{where}.{name!s}") for name in value}
        return value

    def _unread(self, where: str, what: str, way_out: str) -> None:
        self.problems.append(Problem(where, what, way_out))
        self.unread.add(where.partition("[")[0])
