"""The best so far of a run that cannot go on and would take its checkpoints along with the pod."""

import json
from collections.abc import Callable
from pathlib import Path

from podproof.runtime.checkpoints import list_checkpoints
from podproof.runtime.data import read_data
from podproof.runtime.delivery import DeliveryRecord, TrainingEnding, deliver_best
from podproof.runtime.errors import NoUsableCheckpoint, Problem
from podproof.runtime.events import EventKind
from podproof.runtime.libraries import library_versions
from podproof.runtime.model_card import TrainingFacts
from podproof.runtime.plan import Plan
from podproof.runtime.scorer import final_choice, replay_scores


def rescued(
    plan: Plan, output: Path, roots: tuple[Path, ...], why: str, notice: Callable[[str], None]
) -> DeliveryRecord:
    """Deliver the best checkpoint that was saved before the run failed, as far as it had come.

    The record's ending is `failed`, so that another start would train on. Raise NoUsableCheckpoint
    when none was saved, OSError when there is no room.
    """
    saved = list_checkpoints(output)
    if not saved:
        raise NoUsableCheckpoint(Problem(str(output), "no checkpoint was saved", "see the failure"))
    state = json.loads((saved[-1] / "trainer_state.json").read_bytes())
    choice = final_choice(replay_scores(state["log_history"], plan.scorer)[1], plan.scorer)
    rows = read_data(plan.data, plan.method, roots)
    facts = TrainingFacts(
        log_history=state["log_history"],
        final_step=state["global_step"],
        best_step=None if choice is None else choice.step,
        train_rows=len(rows.train),
        eval_rows=len(rows.eval),
        versions=library_versions(),
    )
    score = float("inf") if choice is None else choice.value
    return deliver_best(plan, output, facts, TrainingEnding(EventKind.FAILED, why, score), notice)
