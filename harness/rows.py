"""The data gate: every row of every file at hand, with the code that will read it on the pod."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from podproof.compiler.ir import PodScript, Run
from podproof.harness.verdict import Surroundings
from podproof.runtime.advice import selection_notices
from podproof.runtime.arithmetic import arithmetic
from podproof.runtime.data import read_data
from podproof.runtime.errors import PodproofError, Problem
from podproof.runtime.plan import DataSource, ModelInit, Plan

# Formats the standard library reads; the others need the pod's own packages.
READABLE_HERE = frozenset({DataSource.JSONL, DataSource.JSON, DataSource.CSV})


def data_answer(script: PodScript, surroundings: Surroundings) -> tuple[str, tuple[Problem, ...]]:
    """Return how many rows were checked, and the problems of those that cannot be trained on.

    A model that is a folder of this machine must be there. Rows on the hub, on the pod's own
    volume, or in a format only the pod can read are not looked at here, and the summary says so.
    Few evaluation rows or evaluations are no problem; the summary says what is known of choosing
    by so few.
    """
    plan = script.run.plan
    absent = tuple(_absent_model(script.run))
    summary, problems = _rows_answer(plan, surroundings.data_roots)
    return summary, (*absent, *problems)


def _absent_model(run: Run) -> Iterator[Problem]:
    """Look for a model that is a folder of this machine; a pod's own volume is out of sight."""
    name = run.plan.model.name_or_path
    is_path = name.startswith(("/", "./", "../")) and not name.startswith("/workspace/")
    if is_path and run.plan.model.init is ModelInit.PRETRAINED and not Path(name).is_dir():
        yield Problem("model.name_or_path", f"there is no folder {name}", "give a hub id or a path")


def _rows_answer(plan: Plan, data_roots: Sequence[Path]) -> tuple[str, tuple[Problem, ...]]:
    if plan.data.source not in READABLE_HERE:
        found = f"{plan.data.source.value} rows are checked on the pod, before training"
        return "; ".join([found, *_advice_unread(plan)]), ()
    if plan.data.path.startswith("/workspace/"):
        found = "rows on the network volume are checked on the pod, before training"
        return "; ".join([found, *_advice_unread(plan)]), ()
    try:
        rows = read_data(plan.data, plan.method, tuple(data_roots))
    except PodproofError as error:
        return f"{len(error.problems)} problems", tuple(error.problems)
    evaluations = arithmetic(plan, len(rows.train)).evaluations
    advice = selection_notices(len(rows.eval), evaluations)
    found = f"{len(rows.train):,} rows to train on, {len(rows.eval):,} to evaluate on"
    return "; ".join([found, *advice]), ()


def _advice_unread(plan: Plan) -> tuple[str, ...]:
    """Return the advice that the config alone allows, for rows nobody has counted yet."""
    has_max_steps = int(plan.arguments.get("max_steps", -1)) > 0
    evaluations = arithmetic(plan, 1).evaluations if has_max_steps else None
    return selection_notices(plan.data.max_eval_rows, evaluations)
