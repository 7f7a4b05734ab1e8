"""Where a start of the script goes on: the run's own newest checkpoint, another's, or nowhere."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from podproof.runtime.checkpoints import (
    CHECKPOINT_RECORD,
    MANIFEST_FILE,
    checkpoint_damage,
    list_checkpoints,
    newest_usable_checkpoint,
    quarantine,
)
from podproof.runtime.errors import NoUsableCheckpoint, Problem
from podproof.runtime.plan import Plan, Resume

_RESUME_GRID = ("eval_steps", "save_steps", "logging_steps")


def checkpoint_to_resume(plan: Plan, output: Path, notice: Callable[[str], None]) -> Path | None:
    """Return the checkpoint to go on from; None begins at step 0.

    What could mislead the trainer is moved to `output/quarantine`, and `notice` is told why:
    damaged checkpoints, those of another run, and with resume=never all. With the path of a
    checkpoint as `resume`, the run begins with a copy of it unless it has one of its own.
    """
    resume = plan.recovery.resume
    if resume == Resume.NEVER:
        for path in list_checkpoints(output):
            notice(quarantine(path, "recovery.resume is never"))
        return None
    checkpoint, notices = newest_usable_checkpoint(output, plan.config_sha256)
    for what in notices:
        notice(what)
    if checkpoint is None and resume != Resume.AUTO:
        return adopt_checkpoint(Path(resume), plan, output)
    return checkpoint


def adopt_checkpoint(source: Path, plan: Plan, output: Path) -> Path:
    """Copy a checkpoint of another run into `output` as one of this run, and return the copy.

    The copy is there whole or not at all. Raise NoUsableCheckpoint when the source is damaged.
    """
    damage = checkpoint_damage(source) if source.is_dir() else "there is no such folder"
    if damage is not None:
        way_out = "set recovery.resume to another checkpoint, or to auto"
        raise NoUsableCheckpoint(Problem(str(source), damage, way_out))
    state = json.loads((source / "trainer_state.json").read_bytes())
    draft = output / "adopted.unfinished"
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft, ignore=shutil.ignore_patterns(f"{MANIFEST_FILE}*"))
    (draft / "trainer_state.json").write_text(json.dumps(_adopted_state(plan, state)))
    adopted = output / f"checkpoint-{state['global_step']}"
    os.replace(draft, adopted)
    return adopted


def _adopted_state(plan: Plan, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return another run's trainer state as this run's: its weights go on, its scores do not.

    Its checkpoints are not here to be chosen, and its grid of evaluations is not this plan's.
    """
    arguments = plan.arguments
    grid = {key: arguments[key] for key in _RESUME_GRID if isinstance(arguments.get(key), int)}
    record = {CHECKPOINT_RECORD: {"config_sha256": plan.config_sha256}}
    return {
        **state,
        **grid,
        "log_history": [],
        "best_metric": None,
        "best_global_step": None,
        "best_model_checkpoint": None,
        "stateful_callbacks": {**state["stateful_callbacks"], **record},
    }
