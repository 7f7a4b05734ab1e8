"""Whether two scripts choose the same checkpoints, by running the scorers of both on fixed runs.

A script is run here as far as its scorer: its text is loaded as a module. So only scripts of ours
are, that do nothing when they are loaded.
"""

import ast
import json
from collections.abc import Mapping
from typing import Any

from podproof.compiler.anatomy import TOP_LEVEL, anatomy_of, sections_of
from podproof.compiler.changes import Aspect, Change, Risk, Verb
from podproof.compiler.sides import Side
from podproof.harness.budget import OverBudgetError, within
from podproof.harness.embedded import embedded

_SCORING_MODULES = frozenset({"scorer", "scores", "own_scorer", "readings"})

_Log = Mapping[str, Any]

# A choice takes a thousandth of that.
_CHOICE_S = 5.0


def _run(
    *rounds: tuple[float, float | None] | tuple[float, float | None, float, float],
) -> list[_Log]:
    """Return the log of a run: (eval loss, train loss[, margin, accuracy]) at steps 10, 20, ..."""
    log: list[_Log] = []
    for number, (eval_loss, train_loss, *measures) in enumerate(rounds, 1):
        step = 10 * number
        if train_loss is not None:
            log.append({"step": step, "loss": train_loss})
        entry: dict[str, Any] = {"step": step, "eval_loss": eval_loss, "eval_runtime": 1.0}
        if measures:
            entry["eval_rewards/margins"], entry["eval_rewards/accuracies"] = measures
        log.append(entry)
    return log


# Runs on which formulas differ: over gaps, ties, margins, noise, and losses that cannot be used.
RUNS: Mapping[str, list[_Log]] = {
    "falls to the end": _run((2.0, 2.1), (1.6, 1.6), (1.4, 1.3), (1.3, 1.2)),
    "overfits from the middle": _run((2.0, 2.0), (1.5, 1.3), (1.4, 0.9), (1.6, 0.5), (1.9, 0.2)),
    "nearly flat while train loss plunges": _run((1.50, 1.4), (1.49, 1.0), (1.488, 0.5)),
    "two that tie": _run((2.0, 2.0), (1.5, 1.4), (1.5, 0.9)),
    "a widening gap at a falling loss": _run((1.3, 1.3), (1.2, 0.9), (1.18, 0.8), (1.1, 0.8)),
    "train loss above eval loss": _run((1.5, 3.0), (1.4, 1.4), (1.39, 2.9)),
    "no train loss at first": _run((1.5, None), (1.45, 1.0), (1.44, 0.9)),
    "noise around a floor": _run((1.2, 1.1), (1.0, 1.0), (1.05, 1.05), (1.01, 0.7), (1.02, 1.0)),
    "losses below a tenth": _run((0.09, 0.08), (0.05, 0.02), (0.06, 0.06)),
    "negative losses": _run((-0.1, -0.12), (-0.5, -0.4), (-0.45, -0.45)),
    "an evaluation that is NaN": _run((2.0, 2.0), (float("nan"), 1.5), (1.8, 1.4)),
    "margins that grow as loss rises": _run(
        (0.69, 0.69, 0.0, 0.5), (0.60, 0.5, 0.4, 0.8), (0.61, 0.4, 1.5, 0.9), (0.7, 0.2, 4.0, 0.9)
    ),
}


def choice_changes(before: Side, after: Side) -> tuple[Change, ...]:
    """Return whether the checkpoints chosen differ; nothing when no part of the scorer does.

    Nothing is run of a script that is not ours, or that would do something when loaded.
    """
    if not (_is_quiet(before) and _is_quiet(after)) or _scoring(before) == _scoring(after):
        return ()
    one, other = _choices(before), _choices(after)
    moved = [f"{name}: {one[name]} -> {other[name]}" for name in RUNS if one[name] != other[name]]
    if not moved:
        detail = f"all {len(RUNS)} fixed runs end with the same checkpoint"
        return (_change(detail, Risk.LOW, "your own runs may differ more: podproof rescore"),)
    detail = f"{len(moved)} of {len(RUNS)} fixed runs end otherwise; {'; '.join(moved)}"
    return (_change(detail, Risk.CRITICAL, "see what it does to your past runs: podproof rescore"),)


def _change(detail: str, risk: Risk, mitigation: str) -> Change:
    is_grave = risk is Risk.CRITICAL
    return Change(
        Aspect.SCORER,
        Verb.CHANGED,
        "choices of the scorer",
        detail,
        risk,
        mitigation,
        needs_approval=is_grave,
    )


def _is_quiet(side: Side) -> bool:
    """Tell whether a script is ours and does nothing at its top level but for its entry."""
    sections = sections_of(side.text)
    anatomy = anatomy_of(side.text, frozenset(sections) - {"entry"})
    loose = anatomy.functions.get(TOP_LEVEL)
    nodes = () if loose is None else loose.nodes
    return bool(side.plan is not None and sections) and all(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        for node in nodes
    )


def _scoring(side: Side) -> tuple[str, dict[str, Any]]:
    """Return all that a score depends on: the plan's section, and the code of its modules."""
    section = json.dumps((side.plan or {}).get("scorer"), sort_keys=True)
    others = frozenset(sections_of(side.text)) - _SCORING_MODULES
    code = {
        name: (item.signature, item.entries)
        for name, item in anatomy_of(side.text, others).definitions.items()
    }
    return section, code


def _choices(side: Side) -> dict[str, str]:
    with embedded(side.text) as code:
        plan = code.plan_from_json(code.PLAN_JSON).scorer
        return {name: _choice(code, plan, log) for name, log in RUNS.items()}


def _choice(code: Any, plan: Any, log: list[_Log]) -> str:
    """Return the step a run ends with, in words; what a formula raises is an answer too."""
    try:
        with within(_CHOICE_S):
            chosen = code.final_choice(code.replay_scores(log, plan)[1], plan)
    except OverBudgetError:
        return "no end"
    except Exception as error:
        return f"{type(error).__name__}"
    return "none" if chosen is None else f"step {chosen.step}"
