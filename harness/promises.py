"""What a finished training must have left: the promised events, scores, choice and files."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from podproof.harness.trained import Trained
from podproof.runtime.checkpoints import WEIGHT_FILES, file_sha256, weights_damage
from podproof.runtime.errors import Problem
from podproof.runtime.events import TERMINAL_KINDS, Event, EventKind, number_or_none
from podproof.runtime.plan import AdapterKind, Objective, PublishTo
from podproof.runtime.scorer import SCORE_KEY

_ENDINGS = (EventKind.DONE, EventKind.STOPPED_EARLY)
_DRAFTS = ("*.tmp", "*.unfinished", "*.former")
_MARGIN = "eval_rewards/margins"


def broken_promises(trained: Trained) -> Iterator[Problem]:
    """Yield a problem for each promise that the training did not keep."""
    if not trained.events:
        yield Problem("smoke.events", "exit code 0, and no event was written")
        return
    for name, kept in _PROMISES.items():
        yield from (Problem(f"smoke.{name}", what) for what in kept(trained))


def best_step(trained: Trained) -> int | None:
    """Return the step whose checkpoint the reported scores call for; None without evaluations.

    It is the lowest score, the earliest of equal ones. With `objective=reward` it is the highest
    reward margin among those whose eval loss is near the lowest.
    """
    scores = {step: score for step, score in trained.scores.items() if step > 0}
    if not scores:
        return None
    candidates = list(scores)
    if trained.plan.scorer.objective is Objective.REWARD:
        candidates = _of_highest_margin(trained) or candidates
    return min(candidates, key=lambda step: (scores[step], step))


def is_alike(first: Path, second: Path) -> bool:
    """Tell whether two files are there and hold the same bytes."""
    return second.is_file() and file_sha256(first) == file_sha256(second)


def _of_highest_margin(trained: Trained) -> list[int]:
    told = {event.step: event for event in trained.of(EventKind.EVALUATION) if event.step}
    losses = {step: number_or_none(event.body.get("eval_loss")) for step, event in told.items()}
    known = {step: loss for step, loss in losses.items() if loss is not None}
    if not known:
        return []
    lowest = min(known.values())
    most = lowest + trained.plan.scorer.reward_tolerance * abs(lowest)
    near = [step for step, loss in known.items() if loss <= most]
    margins = {step: _margin(told[step]) for step in near}
    highest = max(margins.values())
    return [step for step in near if margins[step] == highest]


def _margin(event: Event) -> float:
    return number_or_none(event.body.get("metrics", {}).get(_MARGIN)) or 0.0


def _events(trained: Trained) -> Iterator[str]:
    kinds = [event.kind for event in trained.events]
    if kinds[:2] != [EventKind.PLAN, EventKind.STARTED]:
        yield f"the run does not begin with plan and started, but with {_listed(kinds[:2])}"
    if kinds[-1] not in _ENDINGS:
        yield f"exit code 0, and the last event is {kinds[-1].value}"
    if sum(kind in TERMINAL_KINDS for kind in kinds) > 1:
        yield "more than one event ends the run"
    is_delivering = trained.plan.publish.to is not PublishTo.NONE
    if is_delivering and kinds[-2] is not EventKind.DELIVERED:
        yield f"before the end comes {kinds[-2].value}, not delivered"
    if [event.seq for event in trained.events] != list(range(len(kinds))):
        yield "the events are not numbered from 0 without a gap"


def _scores(trained: Trained) -> Iterator[str]:
    evaluates = trained.plan.arguments.get("eval_strategy", "no") != "no"
    if evaluates and not trained.scores:
        yield "the plan evaluates, and no evaluation was reported with a score"
    # With save_total_limit the last checkpoint there is may be an early one, if that is the best.
    last = max((log["step"] for log in trained.log_history), default=0)
    kept = {log["step"]: log[SCORE_KEY] for log in trained.log_history if SCORE_KEY in log}
    for step, score in trained.scores.items():
        if step > last:
            continue
        if step not in kept:
            yield f"the trainer was not shown the score of step {step}"
        elif math.isfinite(score) and kept[step] != -score:
            yield f"at step {step} the trainer was shown {kept[step]}, and {-score} was reported"
    if evaluates and trained.saved_steps != tuple(step for step in trained.scores if step):
        yield f"saved at {_listed(trained.saved_steps)}, scored at {_listed(trained.scores)}"


def _choice(trained: Trained) -> Iterator[str]:
    best = best_step(trained)
    if best is None:
        best = max(trained.saved_steps, default=None)
    elif trained.ending.get("best_step") != best:
        yield f"the run calls step {trained.ending.get('best_step')} best, the scores say {best}"
    if trained.chosen_step != best:
        yield f"the run ended with the weights of step {trained.chosen_step}, not of step {best}"
    for event in trained.of(EventKind.DELIVERED):
        if event.step != best:
            yield f"step {event.step} is said to be delivered, the scores say {best}"


def _delivery(trained: Trained) -> Iterator[str]:
    folder = Path(trained.delivered or "")
    if trained.delivered is None:
        return
    if not folder.is_dir():
        yield f"there is no folder {folder.name}"
        return
    damage = weights_damage(folder)
    if damage is not None:
        yield f"the delivered weights: {damage}"
    there = {path.name for path in folder.iterdir()}
    adapter = trained.plan.adapter.kind is not AdapterKind.NONE
    needed = {"adapter_config.json" if adapter else "config.json", "tokenizer_config.json"}
    yield from (f"{name} is missing" for name in sorted(needed - there))
    told = [event.body for event in trained.of(EventKind.DELIVERED)]
    wanted = told[-1].get("sha256", {}) if told else {}
    if wanted.keys() != there:
        yield f"the event names {_listed(wanted)}, the folder holds {_listed(sorted(there))}"
    yield from (
        f"{name} is not what the event says"
        for name in sorted(wanted.keys() & there)
        if file_sha256(folder / name) != wanted[name]
    )
    yield from _differing(folder, trained)


def _differing(folder: Path, trained: Trained) -> Iterator[str]:
    """Yield the weights that differ from those of the checkpoint that the scores call for."""
    best = best_step(trained) or max(trained.saved_steps, default=0)
    checkpoint = trained.output / f"checkpoint-{best}"
    for name in WEIGHT_FILES:
        if (checkpoint / name).is_file() and not is_alike(checkpoint / name, folder / name):
            yield f"{name} differs from that of checkpoint-{best}, which has the best score"
    if not checkpoint.is_dir():
        yield f"checkpoint-{best}, which has the best score, was not kept"


def _model_card(trained: Trained) -> Iterator[str]:
    if trained.delivered is None:
        return
    path = Path(trained.delivered) / "README.md"
    if not path.is_file():
        yield "the delivered folder has no README.md"
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    chosen = [line.split("|")[1].strip() for line in lines if "**chosen**" in line]
    best = best_step(trained)
    if best is not None and chosen != [str(best)]:
        yield f"the card calls {_listed(chosen)} chosen, the scores say {best}"


def _predictions(trained: Trained) -> Iterator[str]:
    if trained.plan.predictions.enabled and not trained.of(EventKind.PREDICTION):
        yield "sample predictions are asked for, and none was reported"


def _nothing_unfinished(trained: Trained) -> Iterator[str]:
    drafts = (path for pattern in _DRAFTS for path in trained.output.rglob(pattern))
    yield from (f"{path.relative_to(trained.output)} is left over" for path in drafts)
    if (trained.output / "quarantine").is_dir():
        yield "a checkpoint was set aside as damaged"


def _listed(items: object) -> str:
    return ", ".join(map(str, items)) if isinstance(items, list | tuple | dict) else str(items)


_PROMISES: Mapping[str, Callable[[Trained], Iterator[str]]] = {
    "events": _events,
    "scores": _scores,
    "choice": _choice,
    "delivery": _delivery,
    "model card": _model_card,
    "predictions": _predictions,
    "left over": _nothing_unfinished,
}
