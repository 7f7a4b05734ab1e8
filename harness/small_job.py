"""A job for the warm process: a folder with the script as it stands, and a small plan for it."""

import importlib.metadata
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.version import InvalidVersion, Version

from podproof.compiler.ir import PodScript
from podproof.harness.few_rows import few_rows
from podproof.harness.real_training import PLAN_FILE, SCRIPT_FILE
from podproof.harness.shrink import Shrunken
from podproof.harness.verdict import Surroundings
from podproof.harness.warm import LIBRARIES
from podproof.runtime.plan import DataPlan, Plan, plan_to_json


@dataclass(frozen=True)
class SmallJob:
    """A folder that holds script, plan and rows; `notes` say what of the run was left out."""

    folder: Path
    plan: Plan
    notes: tuple[str, ...]


@contextmanager
def small_job(
    script: PodScript, surroundings: Surroundings, shrink: Callable[[Plan, DataPlan], Shrunken]
) -> Iterator[SmallJob]:
    """Yield a job whose plan `shrink` made of the script's; its folder is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="podproof-", ignore_cleanup_errors=True) as place:
        folder = Path(place).resolve()
        plan = _with_whole_path(script.run.plan)
        data, rows = few_rows(plan, surroundings.data_roots, folder)
        small = shrink(plan, data)
        (folder / SCRIPT_FILE).write_text(script.text, encoding="utf-8")
        (folder / PLAN_FILE).write_text(plan_to_json(small.plan), encoding="utf-8")
        others = other_versions(script.run.requirements)
        yield SmallJob(folder, small.plan, (rows, *small.notes, *others))


def _with_whole_path(plan: Plan) -> Plan:
    """Return the plan with the whole path of a model that is a folder; a job runs elsewhere."""
    path = Path(plan.model.name_or_path)
    if not plan.model.name_or_path or not path.is_dir():
        return plan
    return replace(plan, model=replace(plan.model, name_or_path=str(path.resolve())))


def other_versions(requirements: tuple[str, ...]) -> tuple[str, ...]:
    """Return, in words, the libraries that are installed here in another version than is pinned.

    The local part of a version, as in 2.13.0+cpu, says how it was built and does not count.
    """
    pins = dict(requirement.split("==") for requirement in requirements)
    installed = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return tuple(
        f"{name} {installed[name]} tried instead of the pinned {pins[name]}"
        for name in LIBRARIES
        if name in pins and _public(installed[name]) != _public(pins[name])
    )


def _public(version: str) -> str:
    try:
        return Version(version).public
    except InvalidVersion:
        return version
