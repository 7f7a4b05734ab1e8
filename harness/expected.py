"""What a script must make of a trainer's logs, said a second time.

A script folds its logs one by one. Here every answer is worked out anew from all logs so far, after
docs/explanation/score.md and not after runtime/, so that a slip in the one is a difference to the
other. Scores are compared to 1e-9; which of them is the best follows from the scores that the
script itself reported, so that a last bit never decides.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from podproof.harness.drawn import is_usable
from podproof.runtime.plan import Objective, ScorerName, ScorerPlan

Scored = tuple[int, float]


@dataclass(frozen=True)
class Line:
    """One log, read: `kind` is train, evaluation, summary or other; what is unusable is None."""

    kind: str
    step: int
    loss: float | None
    margin: float | None
    accuracy: float | None
    eval_set: str


@dataclass(frozen=True)
class ExpectedScore:
    """What an evaluation must score: named terms and the loss they start from.

    Without terms the score is +inf. `terms` is None where only the script knows the formula.
    """

    terms: Mapping[str, float] | None
    loss: float | None = None

    def allows(self, value: float) -> bool:
        """Tell whether a score is the expected one, to 1e-9 of the largest term.

        Near the largest float a sum may or may not overflow, and either is right.
        """
        if self.terms is None:
            return not math.isnan(value)
        if not self.terms:
            return value == math.inf
        size = max(map(abs, self.terms.values()))
        if size > 1e300:  # noqa: PLR2004 - far from any loss, near the largest float
            return value > -math.inf
        return abs(value - sum(self.terms.values())) <= 1e-9 * size


def line_of(entry: Mapping[str, Any]) -> Line:
    """Return what an entry of a trainer's `log_history` says.

    >>> line_of({"eval_faq_loss": 2.0, "eval_faq_runtime": 0.1, "step": 10})
    Line(kind='evaluation', step=10, loss=2.0, margin=None, accuracy=None, eval_set='faq')
    """
    kind, eval_set = _kind_and_set(entry)
    step = entry.get("step")
    prefix = "eval_" if kind == "evaluation" else ""
    loss = _number(entry, f"{prefix}{eval_set}_loss" if eval_set else f"{prefix}loss")
    ranked, tokens = f"{prefix}rewards/accuracies", f"{prefix}mean_token_accuracy"
    accuracy = _number(entry, ranked if ranked in entry else tokens)
    is_share = accuracy is not None and 0 <= accuracy <= 1
    return Line(
        kind,
        step if isinstance(step, int) else 0,
        None if kind == "train" and _is_patched(entry) else loss,
        _number(entry, f"{prefix}rewards/margins"),
        accuracy if is_share else None,
        eval_set,
    )


def _kind_and_set(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return what the keys say: train_loss a summary, loss a train log, eval_*_runtime a set."""
    if "train_loss" in entry:
        return "summary", ""
    if "loss" in entry:
        return "train", ""
    if "eval_loss" in entry:
        return "evaluation", ""
    timed = [key for key in entry if key.startswith("eval_") and key.endswith("_runtime")]
    names = sorted(key.removeprefix("eval_").removesuffix("runtime")[:-1] for key in timed)
    return ("evaluation", names[0]) if names else ("other", "")


def _number(entry: Mapping[str, Any], key: str) -> float | None:
    value = entry.get(key)
    return float(value) if is_usable(value) else None  # type: ignore[arg-type]  # it is a number


def _is_patched(entry: Mapping[str, Any]) -> bool:
    """Tell whether something beneath the loss was NaN or infinite: then it counts for nothing."""
    count = entry.get("nonfinite_microbatches", 0)
    signs = [entry.get(key, 0.0) for key in ("grad_norm", "entropy", "nll_loss")]
    return (isinstance(count, int | float) and count > 0) or any(
        isinstance(sign, float) and not math.isfinite(sign) for sign in signs
    )


def scored_lines(lines: Sequence[Line]) -> list[Line]:
    """Return the evaluations that are scored: of the first eval set, each step of a run once."""
    evaluations = [line for line in lines if line.kind == "evaluation"]
    ours = [line for line in evaluations if line.eval_set == evaluations[0].eval_set]
    return [
        line
        for before, line in zip([None, *ours], ours, strict=False)
        if line.step <= 0 or before is None or before.step != line.step
    ]


def is_scored(lines: Sequence[Line]) -> bool:
    """Tell whether the last of these lines is an evaluation that is scored."""
    return lines[-1].kind == "evaluation" and scored_lines(lines)[-1] is lines[-1]


def expected_score(lines: Sequence[Line], plan: ScorerPlan) -> ExpectedScore:
    """Return what the last of these lines, an evaluation that is scored, must score."""
    last = lines[-1]
    if last.loss is None:
        return ExpectedScore({})
    usable = [line for line in scored_lines(lines) if line.loss is not None]
    losses = scored_losses_of(lines, plan)
    scale = abs(usable[0].loss or 0.0)
    terms = _formula(lines, losses, scale, plan)
    if plan.objective is Objective.ACCURACY and terms is not None:
        known = [line.accuracy for line in usable if line.accuracy is not None]
        accuracy = known[-1] if known else 0.0
        terms = {**terms, "objective": -plan.accuracy_weight * scale * accuracy}
    return ExpectedScore(terms, losses[-1])


def scored_losses_of(lines: Sequence[Line], plan: ScorerPlan) -> list[float]:
    """Return the usable eval losses as they are scored, oldest first."""
    losses = [line.loss for line in scored_lines(lines) if line.loss is not None]
    if not plan.redrawn_eval:
        return losses
    return [_average(losses[: count + 1], plan.eval_ema_alpha) for count in range(len(losses))]


def _formula(
    lines: Sequence[Line], losses: Sequence[float], scale: float, plan: ScorerPlan
) -> Mapping[str, float] | None:
    loss = losses[-1]
    trained = [line.loss for line in lines if line.kind == "train" and line.loss is not None]
    match plan.name:
        case ScorerName.EVAL_LOSS:
            return {"eval_loss": loss}
        case ScorerName.ROBUST:
            mean = _average(trained, plan.train_ema_alpha) if trained else loss
            gap = min(max(loss - mean, 0.0), plan.gap_limit * scale)
            return {"eval_loss": loss, "gap": plan.gap_weight * gap}
        case ScorerName.SEED_V1:
            return _original_formula(losses, trained[-1] if trained else None)
        case _:
            return None


def expected_bound(plan: ScorerPlan) -> tuple[float, float] | None:
    """Return how far below and above eval loss a score may lie; None where only the script knows.

    >>> expected_bound(ScorerPlan(objective=Objective.ACCURACY))
    (-0.2, 0.01)
    """
    weight = plan.accuracy_weight if plan.objective is Objective.ACCURACY else 0.0
    match plan.name:
        case ScorerName.EVAL_LOSS:
            return -weight, 0.0
        case ScorerName.ROBUST:
            return -weight, plan.gap_weight * plan.gap_limit
        case ScorerName.SEED_V1:
            return -math.inf, math.inf
        case _:
            return None


def _original_formula(losses: Sequence[float], trained: float | None) -> Mapping[str, float]:
    *before, loss = losses
    gap = 0.0 if trained is None else abs(trained - loss) / max(loss, 0.001)
    is_falling = len(before) > 1 and before[-1] < before[-2]
    return {
        "eval_loss": 0.5 * loss,
        "gap": 0.3 * gap,
        "perplexity": 0.1 * min(math.exp(loss) / 20.0, 1.0),
        "improving": -0.1 * is_falling,
    }


def _average(values: Sequence[float], alpha: float) -> float:
    return reduce(lambda mean, value: (1 - alpha) * mean + alpha * value, values)


def best_of(scores: Sequence[Scored]) -> Scored | None:
    """Return step and value of the lowest score; of equal ones the first. None: none is usable.

    What is evaluated before the first step has no checkpoint, and is never the best.
    """
    usable = [(step, value) for step, value in scores if step > 0 and value < math.inf]
    return min(usable, key=lambda score: score[1], default=None)


def since_best(scores: Sequence[Scored], min_delta: float) -> int:
    """Return how many evaluations ago the best was beaten by more than `min_delta`.

    Without any: how many there were after the first, which starts the count; -1 before it.
    """
    count = -1
    for place, (_, value) in enumerate(scores):
        best = best_of(scores[:place])
        is_better = (math.inf if best is None else best[1]) - value > min_delta
        count = 0 if is_better else count + 1
    return count


def expected_choice(
    lines: Sequence[Line], scores: Sequence[Scored], plan: ScorerPlan
) -> int | None:
    """Return the step of the checkpoint a run with these logs and scores ends with."""
    best = best_of(scores)
    if plan.objective is not Objective.REWARD or best is None:
        return None if best is None else best[0]
    pairs = zip(scored_lines(lines), scores, strict=True)
    usable = [(line, value) for line, (_, value) in pairs if line.loss is not None]
    rows = [
        (loss, line.margin, value, line.step)
        for loss, (line, value) in zip(scored_losses_of(lines, plan), usable, strict=True)
        if line.step > 0 and value < math.inf
    ]
    lowest = min(loss for loss, *_ in rows)
    limit = lowest + plan.reward_tolerance * abs(lowest)
    near = [
        (-margin, value, place, step)
        for place, (loss, margin, value, step) in enumerate(rows)
        if margin is not None and loss <= limit
    ]
    return min(near)[-1] if near else best[0]
