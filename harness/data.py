"""The data gate: every row of every file at hand, with the code that will read it on the pod."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from podproof.compiler.ir import PodScript, Run
from podproof.harness.examination import Examined, examine
from podproof.harness.row_advice import with_ways_out
from podproof.harness.row_amounts import amount_notices, amount_problems
from podproof.harness.row_cache import (
    cache_key,
    code_sha256,
    library_versions,
    remember,
    remembered,
)
from podproof.harness.row_scan import has_parquet_reader
from podproof.harness.run_length import run_length_problems
from podproof.harness.template_probe import template_problems
from podproof.harness.tokenizer import TokenizerFiles, find_tokenizer
from podproof.harness.verdict import Surroundings
from podproof.runtime.advice import selection_notices
from podproof.runtime.arithmetic import arithmetic
from podproof.runtime.data import data_sources, find_data_file, missing_file
from podproof.runtime.errors import BadPlan, Problem
from podproof.runtime.models import model_location
from podproof.runtime.plan import DataSource, ModelInit, ModelPlan, Plan

# The arguments of the trainer that decide what is learnt of a row.
_ARGUMENTS = ("max_length", "truncation_mode", "packing", "assistant_only_loss")


def data_answer(
    script: PodScript, surroundings: Surroundings
) -> tuple[str, tuple[Problem, ...], Mapping[str, Any]]:
    """Return how many rows were checked, the problems found, and the numbers behind them.

    A model that is a folder of this machine must be there. Rows on the hub, on the pod's own
    volume, or in a format that only the pod can read are not looked at here, and the summary says
    so. Few evaluation rows or evaluations are no problem; the summary says what is known of
    choosing by so few. What was found of the same bytes before is not looked for again.
    """
    plan = script.run.plan
    unfit = tuple(template_problems(plan.model))
    absent = (*_absent_model(script.run), *unfit)
    if unfit:
        # It would be tried on every row; one that does not end would never be done.
        return "rows were not looked at: the chat template is refused", absent, {}
    unseen = _unseen(plan)
    if unseen:
        return "; ".join([unseen, *_advice_unread(plan)]), absent, {}
    paths = [
        (source.path, find_data_file(source.path, tuple(surroundings.data_roots)))
        for source in data_sources(plan.data)
    ]
    missing = [missing_file(name, surroundings.data_roots) for name, path in paths if path is None]
    if missing:
        return f"{len(missing)} file(s) missing", (*absent, *missing), {}
    found = _examined(plan, [path for _, path in paths if path is not None], surroundings)
    problems = with_ways_out(found.problems)
    if not problems:
        problems = (
            *amount_problems(plan, found.train, found.eval),
            *run_length_problems(plan, arithmetic(plan, found.train)),
        )
    facts = found.facts if problems else (*found.facts, *_advice(plan, found))
    return "; ".join(facts), (*absent, *problems), found.details


def _absent_model(run: Run) -> Iterator[Problem]:
    """Look for a model that is a folder of this machine; a pod's own volume is out of sight."""
    model, name = run.plan.model, run.plan.model.name_or_path
    is_path = name.startswith(("/", "./", "../")) and not name.startswith("/workspace/")
    if model.init is not ModelInit.PRETRAINED:
        return
    if is_path and not Path(name).is_dir():
        yield Problem("model.name_or_path", f"there is no folder {name}", "give a hub id or a path")
    elif is_path and model.gguf_file is not None and not Path(name, model.gguf_file).is_file():
        what = f"there is no file {model.gguf_file!r} in {name}"
        yield Problem("model.gguf_file", what, "name a GGUF file of the folder")
    elif name.startswith("package:"):
        yield from _absent_from_package(model)


def _absent_from_package(model: ModelPlan) -> Iterator[Problem]:
    """Look for the GGUF file in a package that is installed here; of others nothing is known."""
    try:
        model_location(model)
    except BadPlan as error:
        yield from (problem for problem in error.problems if problem.where == "model.gguf_file")


def _unseen(plan: Plan) -> str:
    """Say why the rows cannot be looked at here, or nothing."""
    if plan.data.source is DataSource.HUB:
        return "hub rows are checked on the pod, before training"
    if plan.data.path.startswith("/workspace/"):
        return "rows on the network volume are checked on the pod, before training"
    if plan.data.source is DataSource.PARQUET and not has_parquet_reader():
        return "parquet rows are checked on the pod: the package pyarrow is not installed here"
    return ""


def _examined(plan: Plan, paths: Sequence[Path], surroundings: Surroundings) -> Examined:
    """Return what is remembered of these bytes under this plan, or look and remember."""
    tokenizer = find_tokenizer(plan.model)
    asked = {
        "code": code_sha256(),
        "libraries": library_versions(),
        "data": asdict(plan.data),
        "method": plan.method,
        "model": asdict(plan.model),
        "arguments": {name: plan.arguments.get(name) for name in _ARGUMENTS},
        "tokenizer": tokenizer.sha256 if isinstance(tokenizer, TokenizerFiles) else tokenizer,
    }
    home, before = surroundings.home, [_stamp(path) for path in paths]
    key = "" if home is None else cache_key(paths, asked)
    known = _from_dict(remembered(home, key))
    if known is not None:
        return known
    found = examine(plan, paths, tokenizer, surroundings.on_progress)
    # What was read may be newer than what the key is of.
    if before == [_stamp(path) for path in paths]:
        remember(home, key, asdict(found))
    return found


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _from_dict(fields: Mapping[str, Any] | None) -> Examined | None:
    """Read back what was remembered; None for anything else, whoever wrote it."""
    try:
        fields = fields or {}
        problems = tuple(Problem(**problem) for problem in fields["problems"])
        facts = tuple(str(fact) for fact in fields["facts"])
        details = {**fields["details"], "cached": True}
        return Examined(problems, facts, details, int(fields["train"]), int(fields["eval"]))
    except (KeyError, TypeError, ValueError):
        return None


def _advice(plan: Plan, found: Examined) -> tuple[str, ...]:
    evaluations = arithmetic(plan, found.train).evaluations
    return (
        *amount_notices(plan, found.train, found.eval),
        *selection_notices(found.eval, evaluations),
    )


def _advice_unread(plan: Plan) -> tuple[str, ...]:
    """Return the advice that the config alone allows, for rows nobody has counted yet."""
    has_max_steps = int(plan.arguments.get("max_steps", -1)) > 0
    evaluations = arithmetic(plan, 1).evaluations if has_max_steps else None
    return selection_notices(plan.data.max_eval_rows, evaluations)
