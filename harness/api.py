"""The api gate: does the pinned library take these arguments, and export these names.

Asked of tables (api_tables/, written by make_api_tables.py from the wheels), so that no library is
imported here, and a version can be asked about that is not installed.
"""

import ast
import difflib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from podproof.compiler.ir import PodScript
from podproof.compiler.keys import FORMER_NAMES
from podproof.compiler.pins import POD_PINS
from podproof.compiler.rules import OWN_ARGUMENTS
from podproof.compiler.schema import METHODS, TrainerConfig, plain
from podproof.compiler.syntax import syntax_of
from podproof.harness.adapter_names import adapter_names
from podproof.harness.api_types import misfit
from podproof.harness.explain import key_of
from podproof.harness.model_names import model_names
from podproof.harness.position_limit import position_limit
from podproof.harness.verdict import Surroundings
from podproof.runtime.errors import Problem
from podproof.runtime.plan import MethodName, Plan
from podproof.runtime.trainers import trainer_arguments

PACKAGES = ("accelerate", "peft", "transformers", "trl")
CONFIG_CLASSES: Mapping[MethodName, str] = {
    MethodName.SFT: "SFTConfig",
    MethodName.DPO: "DPOConfig",
    MethodName.ORPO: "ORPOConfig",
}
TRAINER_CLASSES: Mapping[MethodName, str] = {
    MethodName.SFT: "SFTTrainer",
    MethodName.DPO: "DPOTrainer",
    MethodName.ORPO: "ORPOTrainer",
}

# What became of arguments that have no other name today; compiler/keys.py knows the renamed ones.
# Sources: the signatures of TRL 0.15 to 1.16 and of transformers 4 and 5.
GONE: Mapping[str, str] = {
    "group_by_length": "it is train_sampling_strategy=group_by_length now",
    "save_safetensors": "safetensors is all there is now; take it out",
    "overwrite_output_dir": "take it out: a run has a folder of its own",
    "logging_dir": "take it out: each integration names its own folder",
    "no_cuda": "it is use_cpu now, and the script sets it where there is no GPU",
    "max_prompt_length": "prompts have no limit of their own now: set method.max_length",
    "max_completion_length": "only orpo has it: set method.max_length",
    "rpo_alpha": "set method.loss_type=[sigmoid,sft] and method.loss_weights",
    "ref_model_init_kwargs": "take it out: the reference is the model before training",
    "force_use_ref_model": "take it out: the reference is the model before training",
    "tokenizer": "take it out: the script gives the tokenizer as processing_class",
    "push_to_hub": "set publish=hub",
}


@dataclass(frozen=True)
class ClassTable:
    """The arguments of one class by name, with the source text of their defaults and types.

    Types are known of dataclasses only.
    """

    name: str
    version: str
    arguments: Mapping[str, str]
    types: Mapping[str, str]
    takes_others: bool


def api_answer(script: PodScript, _surroundings: Surroundings) -> tuple[str, tuple[Problem, ...]]:
    """Return what was compared, and a problem for each name the pinned versions do not have."""
    versions = pinned_versions(script.run.requirements)
    untabled = tuple(_untabled(versions))
    if untabled:
        return "versions without a table", untabled
    problems = (
        *_arguments(script.run.plan, versions),
        *_values(script.run.plan, versions),
        *_requirements(script.run.requirements, versions),
        *_names(script, versions),
        *model_names(script.run.plan.model, versions["transformers"]),
        *adapter_names(script.run.plan.model, script.run.plan.adapter),
        *position_limit(script.run.plan),
    )
    told = ", ".join(f"{package} {version}" for package, version in versions.items())
    changed = [line for item in versions.items() for line in changed_defaults(*item)]
    return f"{told}{_told_changes(changed)}", problems


def pinned_versions(requirements: Collection[str]) -> Mapping[str, str]:
    """Return the version of each described package among the exact requirements of a script.

    >>> pinned_versions(["trl==1.16.0", "torch==2.13.0"])
    {'trl': '1.16.0'}
    """
    pairs = (requirement.partition("==") for requirement in requirements)
    return {package: version for package, _, version in pairs if package in PACKAGES}


def tabled_versions(package: str) -> tuple[str, ...]:
    """Return the versions of a package that there are tables of, as text, sorted as text."""
    names = (
        item.name for item in resources.files("podproof.harness").joinpath("api_tables").iterdir()
    )
    heads = [name.removesuffix(".json").split("-") for name in names if name.endswith(".json")]
    return tuple(sorted(version for there, version in heads if there == package))


def changed_defaults(package: str, version: str) -> tuple[str, ...]:
    """Return, in words, each default that is another one than in the version podproof pins."""
    usual = POD_PINS[package]
    if version == usual:
        return ()
    before, now = _table(package, usual)["classes"], _table(package, version)["classes"]
    return tuple(
        f"{name}.{key}: {before[name]['arguments'][key]} -> {default}"
        for name in sorted(before.keys() & now.keys())
        for key, default in sorted(now[name]["arguments"].items())
        if before[name]["arguments"].get(key, default) != default
    )


def class_table(name: str, versions: Mapping[str, str]) -> ClassTable | None:
    """Return the arguments of a class, inherited ones included; None when it is not described."""
    for package, version in versions.items():
        found = _table(package, version)["classes"].get(name)
        if found is not None:
            own = ClassTable(
                name,
                f"{package} {version}",
                found["arguments"],
                found["types"],
                found["takes_others"],
            )
            return _with_bases(own, found["bases"], versions)
    return None


def _with_bases(own: ClassTable, bases: Sequence[str], versions: Mapping[str, str]) -> ClassTable:
    inherited = [table for base in bases if (table := class_table(base, versions)) is not None]
    arguments = {key: text for table in inherited for key, text in table.arguments.items()}
    types = {key: text for table in inherited for key, text in table.types.items()}
    return replace(own, arguments={**arguments, **own.arguments}, types={**types, **own.types})


@cache
def _table(package: str, version: str) -> Mapping[str, Any]:
    path = resources.files("podproof.harness") / "api_tables" / f"{package}-{version}.json"
    table: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table


def _untabled(versions: Mapping[str, str]) -> Iterator[Problem]:
    for package, version in versions.items():
        there = tabled_versions(package)
        if version not in there:
            what = f"there is no table of {package} {version}, so nobody knows what it takes"
            way_out = f"pin one of {', '.join(there)}, or say why in gates.skip.api"
            yield Problem(f"pod.requirements.{package}", what, way_out)


def _arguments(plan: Plan, versions: Mapping[str, str]) -> Iterator[Problem]:
    """Check every argument that the script will give the method's config class."""
    table = class_table(CONFIG_CLASSES[plan.method], versions)
    assert table is not None, "every tabled TRL has the config class of every method"
    given = trainer_arguments(plan, Path("output"))
    for key in sorted(given.keys() - table.arguments.keys()):
        what = f"{table.name} of {table.version} does not take it"
        yield Problem(key_of(key, plan), what, _way_out(key, table.arguments))
    # The others were typed by podproof, which knows of some what the libraries do not write down.
    for key in sorted(_free_arguments(plan) & given.keys() & table.types.keys()):
        if misfit(table.types[key], given[key]):
            what = f"{table.version} takes {table.types[key]}, got {given[key]!r}"
            yield Problem(key_of(key, plan), what, "write a value of that type")


def _free_arguments(plan: Plan) -> set[str]:
    """Return the arguments of a plan that came from `trainer.extra`."""
    typed = {*plain(TrainerConfig()), *plain(METHODS[plan.method]()), *OWN_ARGUMENTS}
    return set(plan.arguments) - typed


def _values(plan: Plan, versions: Mapping[str, str]) -> Iterator[Problem]:
    """Check the arguments that are members of an enumeration of transformers."""
    values = _table("transformers", versions["transformers"])["values"]
    for key, name in (("optim", "OptimizerNames"), ("lr_scheduler_type", "SchedulerType")):
        given = plan.arguments.get(key)
        if given is not None and given not in values[name]:
            near = difflib.get_close_matches(str(given), values[name], n=1)
            what = f"transformers {versions['transformers']} has no {given!r}"
            way_out = f"did you mean {near[0]}?" if near else f"it has {', '.join(values[name])}"
            yield Problem(f"trainer.{key}", what, way_out)


def _requirements(requirements: Collection[str], versions: Mapping[str, str]) -> Iterator[Problem]:
    """Check that the pins satisfy what each described package needs of the others."""
    pins = {name: pin for name, _, pin in (item.partition("==") for item in requirements)}
    for package, version in versions.items():
        for needed, wanted in _table(package, version)["requires"].items():
            if needed in pins and not SpecifierSet(wanted).contains(pins[needed], prereleases=True):
                what = f"{package} {version} needs {needed} {wanted}, and {pins[needed]} is pinned"
                way_out = f"leave pod.requirements.{needed} out, or pin one in that range"
                yield Problem(f"pod.requirements.{needed}", what, way_out)


def _way_out(key: str, there: Collection[str]) -> str:
    if key in GONE:
        return GONE[key]
    if key in FORMER_NAMES:
        return f"it is {FORMER_NAMES[key]} now"
    near = difflib.get_close_matches(key, there, n=1)
    return f"did you mean {near[0]}?" if near else "take it out, or pin a version that has it"


def _names(script: PodScript, versions: Mapping[str, str]) -> Iterator[Problem]:
    """Check what the script imports from described packages, and how it calls their classes."""
    try:
        nodes = syntax_of(script.text).nodes
    except (SyntaxError, ValueError):
        return  # the artefact gate says what is wrong with the text
    for node in nodes:
        where = f"pod_script.py:{getattr(node, 'lineno', 1)}"
        if isinstance(node, ast.ImportFrom):
            yield from _import_problems(node, where, versions)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from _call_problems(node, where, versions, script.run.plan.method)


def _import_problems(
    node: ast.ImportFrom, where: str, versions: Mapping[str, str]
) -> Iterator[Problem]:
    module = node.module or ""
    package = module.partition(".")[0]
    if package not in versions:
        return
    exports = _table(package, versions[package])["exports"].get(module)
    there = f"{package} {versions[package]}"
    if not isinstance(exports, list):
        yield Problem(where, f"imports from {module}, which the table of {there} does not have")
        return
    for alias in node.names:
        if alias.name not in exports:
            near = difflib.get_close_matches(alias.name, exports, n=1)
            way_out = f"did you mean {near[0]}?" if near else f"pin a {package} that has it"
            yield Problem(where, f"{there} exports no {alias.name} from {module}", way_out)


def _call_problems(
    node: ast.Call, where: str, versions: Mapping[str, str], method: MethodName
) -> Iterator[Problem]:
    assert isinstance(node.func, ast.Name)
    name = TRAINER_CLASSES[method] if node.func.id == "trainer_class" else node.func.id
    table = class_table(name, versions)
    if table is None or table.takes_others:
        return
    for keyword in node.keywords:
        if keyword.arg is not None and keyword.arg not in table.arguments:
            what = f"{name} of {table.version} takes no argument {keyword.arg}"
            yield Problem(where, what, _way_out(keyword.arg, table.arguments))


def _told_changes(changed: Sequence[str]) -> str:
    return f"; other defaults than usual: {', '.join(changed)}" if changed else ""
