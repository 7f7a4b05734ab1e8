"""The config that a plan was lowered from, read back, and what was asked of it asked again.

A script may come from anywhere, and its plan be edited. So what is asked of a config is asked of
the plan too, under the keys of the config; and lowering that config again must give the plan.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from typing import Any, get_args, get_type_hints

from packaging.utils import canonicalize_name

from podproof.compiler.ir import PodScript, Provider, Run
from podproof.compiler.lower import SELECTION, arguments_of, requirements_of
from podproof.compiler.own_scorer import formula_problems
from podproof.compiler.places import in_order, is_about
from podproof.compiler.rules import violations
from podproof.compiler.schema import (
    METHODS,
    Config,
    GatesConfig,
    GatesLevel,
    PodConfig,
    TrainerConfig,
    plain,
)
from podproof.compiler.typed import read_or_default
from podproof.runtime.errors import Problem
from podproof.runtime.plan import ScorerName, ScorerPlan

_COMPILE = "change the config and compile it again; a script is never edited by hand"
# Written by lowering from other keys, so no argument that a config could have given itself.
_LOWERED = frozenset({*SELECTION, "save_strategy", "seed", "report_to"})


def plan_problems(script: PodScript) -> tuple[Problem, ...]:
    """Return what no config could have said of the plan, by the keys of a config.

    Of a script whose pod is not known only what is wrong on every pod.
    """
    unread: list[Problem] = []
    config = config_of(script.run, unread)
    flagged = {problem.where for problem in unread}
    found = {*_broken_rules(config, knows_pod=script.knows_pod), *_changed(config, script.run)}
    if script.run.own_scorer is not None:
        found |= set(formula_problems(ast.parse(script.run.own_scorer), str(config.scorer.file)))
    return tuple(in_order([*unread, *(item for item in found if not is_about(item, flagged))]))


def config_of(run: Run, problems: list[Problem]) -> Config:
    """Return the config whose lowering the run is, if it is one of any.

    What cannot be read of the trainer's arguments is a problem, and its default. Where lowering
    forgets a value, as that of `eval_steps` without evaluations at steps, it is the default too.
    """
    plan = run.plan
    method = plan.method.value
    sections = _sections(plan.arguments, method)
    trainer, own = (
        read_or_default(kind, sections[key], key, problems, method)
        for key, kind in (("trainer", TrainerConfig), ("method", METHODS[method]))
    )
    config = Config(
        name=plan.name,
        seed=plan.seed,
        model=plan.model,
        data=plan.data,
        method=own,
        adapter=plan.adapter,
        trainer=trainer,
        scorer=plan.scorer,
        recovery=plan.recovery,
        predictions=plan.predictions,
        pod=_pod(run),
        report=plan.report,
        publish=plan.publish,
        gates=GatesConfig(GatesLevel(run.gates_level), dict(run.gates_skip)),
    )
    own_pins = dict(_pin(item) for item in own_requirements(run, config))
    return replace(config, pod=replace(config.pod, requirements=own_pins))


def own_requirements(run: Run, config: Config) -> tuple[str, ...]:
    """Return the pins of a script that podproof would not have written for its config, sorted."""
    ours = requirements_of(replace(config, pod=replace(config.pod, requirements={})))
    return tuple(item for item in run.requirements if item not in ours)


def _pin(requirement: str) -> tuple[str, str]:
    name, _, version = requirement.partition("==")
    return name, version


def _pod(run: Run) -> PodConfig:
    spec = asdict(run.pod)
    # A manifest has digests of the values, which say nothing: only names can be asked about.
    env = dict.fromkeys(dict(spec["env"]), "")
    return PodConfig(**{**spec, "env": env, "secrets": dict(spec["secrets"])})


def _sections(arguments: Mapping[str, Any], method: str) -> dict[str, dict[str, Any]]:
    """Return the plain sections that these arguments were lowered from."""
    kinds = {"trainer": TrainerConfig, "method": METHODS[method]}
    sections = {key: _typed_fields(kind, arguments) for key, kind in kinds.items()}
    known = {*sections["trainer"], *sections["method"], *_LOWERED}
    sections["trainer"]["extra"] = {
        key: value for key, value in arguments.items() if key not in known
    }
    sections["method"]["name"] = method
    return sections


def _typed_fields(kind: type[Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a section; absent is null where a field may be, else its default."""
    hints, defaults = get_type_hints(kind), plain(kind())
    nothing = {
        name: None if type(None) in get_args(hint) else defaults[name]
        for name, hint in hints.items()
        if name not in {"extra", "name"}
    }
    return {name: arguments.get(name, default) for name, default in nothing.items()}


def _broken_rules(config: Config, *, knows_pod: bool) -> set[Problem]:
    # The text of a formula of the user's rides in the script; there is no file to look for.
    if config.scorer.name is ScorerName.OWN and config.scorer.file:
        scorer = replace(config.scorer, name=ScorerPlan().name, file=None)
        config = replace(config, scorer=scorer)
    if knows_pod:
        return set(violations(config))
    local = replace(config.pod, provider=Provider.LOCAL)
    pods = (replace(local, gpu=()), replace(local, gpu=("a GPU",)))
    with_cpu, with_gpu = (set(violations(replace(config, pod=pod))) for pod in pods)
    return with_cpu & with_gpu


def _changed(config: Config, run: Run) -> Iterator[Problem]:
    """Yield what lowering the config again would write otherwise."""
    lowered, given = arguments_of(config), run.plan.arguments
    for name in sorted(lowered.keys() | given.keys()):
        if (name in lowered, lowered.get(name)) != (name in given, given.get(name)):
            expected = f"be {lowered[name]!r}" if name in lowered else "not be there"
            found = repr(given[name]) if name in given else "nothing"
            what = f"must {expected}, as this config is compiled to, got {found}"
            why = ": the score would not choose the weights" if name in SELECTION else ""
            yield Problem(_key_of(name, config), what + why, _COMPILE)
    pinned = {_pin(item)[0] for item in run.requirements}
    for name, version in map(_pin, requirements_of(config)):
        if canonicalize_name(name) not in pinned:
            yield Problem("pod.requirements", f"{name}=={version} is not pinned", _COMPILE)


def _key_of(argument: str, config: Config) -> str:
    """Return the key of the config that an argument is compiled from; its own name if of none."""
    for section, value in (("trainer", config.trainer), ("method", config.method)):
        if argument in {item.name for item in fields(value)}:
            return f"{section}.{argument}"
    return f"arguments.{argument}"
