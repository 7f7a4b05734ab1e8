"""The invariants of a trainer's stream: what may change from one event to the next.

Each rule looks at two events in a row, and at what was seen since the training began. They follow
from the loop of transformers 5.23. Only a callback that writes into the state breaks them though
nothing is wrong. That a raised flag has its effect is no rule: a callback after the recorder may
lower it again, unseen.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from podproof.harness.stream_events import StreamEvent

_LOGS = frozenset("LVF")
_STOPS = ("should_training_stop", "should_epoch_stop")
# The trainer lowers these before its callbacks are asked.
_LOWERED_AT: Mapping[str, tuple[str, ...]] = {
    "s": ("should_log", "should_evaluate", "should_save"),
    "L": ("should_log",),
    "V": ("should_log",),
    "F": ("should_log",),
    "v": ("should_evaluate",),
    "K": ("should_save",),
}
_CLOSE = 1e-6  # of a micro-batch, and of an epoch

Broken = Iterator[str]


@dataclass
class _Seen:
    """What a training has shown so far."""

    is_training: bool = False
    logged_step: int = 0
    substeps: int = 0
    epochs_begun: int = 0
    is_resumed: bool = False
    step_began_at: float | None = None  # None at the first step of an epoch
    batches: int | None = None
    accumulation: int | None = None
    predictions: int = 0
    set_batches: dict[str, int] = field(default_factory=dict)
    sets: list[str] = field(default_factory=list)
    all_sets: tuple[str, ...] | None = None
    checkpoints: tuple[int, ...] | None = None


def broken_rules(events: Sequence[StreamEvent]) -> Iterator[tuple[int, str]]:
    """Yield the number of each event that breaks a rule, and which, in words."""
    seen = _Seen()
    for number, after in enumerate(events):
        before = events[number - 1] if number else None
        if after.letter == "B":
            is_resumed = after.step > 0
            seen = _Seen(is_training=True, is_resumed=is_resumed, logged_step=after.step)
        elif before is not None and after.letter != "I":
            for rule in _RULES:
                yield from ((number, what) for what in rule(before, after, seen))
        _remember(after, seen)


def _steps_and_epochs(before: StreamEvent, after: StreamEvent, seen: _Seen) -> Broken:
    is_update = after.letter == "S"
    if after.step - before.step != is_update:
        yield f"step {before.step} -> {after.step}"
    # A resumed run counts its epochs by its steps, and some epoch may have ended early.
    is_recounted = is_update and seen.is_resumed and seen.epochs_begun == 1
    if not is_recounted and (after.epoch > before.epoch) != is_update:
        yield f"epoch {before.epoch} -> {after.epoch}"
    if is_update and after.step >= after.max_steps and not after.flag("should_training_stop"):
        yield f"no stop at step {after.step} of {after.max_steps}"
    if before.max_steps != after.max_steps or before.every != after.every:
        yield "the schedule changed"
    if after.numbers is not None and after.numbers.get("epoch", after.epoch) != after.epoch:
        yield f"a log of epoch {after.numbers['epoch']} at epoch {after.epoch}"


def _flags(before: StreamEvent, after: StreamEvent, _: _Seen) -> Broken:
    for flag in _LOWERED_AT.get(after.letter, ()):
        if after.flag(flag):
            yield f"{flag} is up"
    for flag in _STOPS:
        is_new_epoch = flag == "should_epoch_stop" and after.letter == "E"
        if before.flag(flag) and not after.flag(flag) and not is_new_epoch:
            yield f"{flag} was taken back"


def _history(before: StreamEvent, after: StreamEvent, seen: _Seen) -> Broken:
    if after.history_length - before.history_length != (after.letter in _LOGS):
        yield f"log_history grew by {after.history_length - before.history_length}"
    if after.letter == "L" and after.step <= seen.logged_step:
        yield f"step {after.step} was logged already"


def _best(before: StreamEvent, after: StreamEvent, seen: _Seen) -> Broken:
    is_compared = before.letter == "v" and after.letter not in "PV" and seen.is_training
    was, now = before.best_metric, after.best_metric
    changed = now != was and not (now != now and was != was)  # noqa: PLR0124 - NaN is not itself
    moved = before.best_global_step != after.best_global_step
    if (changed or moved) and not is_compared:
        yield "the best changed without an evaluation"
    if moved and after.best_global_step != after.step:
        yield f"the best is of step {after.best_global_step} at step {after.step}"
    if before.best_model_checkpoint == after.best_model_checkpoint:
        return
    # A checkpoint written as the process is told to end comes with the stop, without on_save.
    if after.letter not in "KH" and not after.flag("should_training_stop"):
        yield "the best checkpoint changed without a save"
    if after.best_model_checkpoint != after.best_global_step:
        yield f"the best checkpoint is {after.best_model_checkpoint}, not of the best step"


def _stops(before: StreamEvent, after: StreamEvent, seen: _Seen) -> Broken:
    """Yield what goes on after a stop, and what breaks off without one."""
    was_asked, is_asked = (any(map(event.flag, _STOPS)) for event in (before, after))
    pair = before.letter + after.letter
    # What is raised in on_epoch_begin ends the epoch after its first micro-batch.
    if was_asked and after.letter == "s" and before.letter != "E":
        yield "a step after a stop"
    if was_asked and pair in {"uu", "up"}:
        yield "an update went on after a stop"
    if pair == "ue" and not is_asked:
        yield "an update broke off without a stop"
    # Nor does the trainer look at a stop raised before its first epoch.
    if before.flag("should_training_stop") and after.letter == "E" and seen.epochs_begun:
        yield "an epoch after a stop"


def _epochs(before: StreamEvent, after: StreamEvent, _: _Seen) -> Broken:
    """Yield what is wrong with where an epoch, and the run, ends."""
    is_asked = any(map(after.flag, _STOPS))
    is_whole = abs(after.epoch - round(after.epoch)) < _CLOSE
    if after.letter == "e" and before.letter != "E" and not (is_asked or is_whole):
        yield "an epoch broke off without a stop"
    if after.letter == "s" and before.letter in "SLvK" and is_whole:
        yield "a step after the last of its epoch"
    is_through = after.epoch > after.num_train_epochs - _CLOSE
    if after.letter == "F" and before.letter != "B" and not (is_asked or is_through):
        yield "the run ended before its last epoch"


def _micro_batches(before: StreamEvent, after: StreamEvent, seen: _Seen) -> Broken:
    if after.letter != "S" or before.letter != "o":
        return
    taken, gained = seen.substeps + 1, _gained(after, seen)
    if seen.batches and gained and abs(gained * seen.batches - taken) > _CLOSE:
        yield f"{taken} micro-batches, and the epoch grew by {gained * seen.batches:g}"
    usual = seen.accumulation
    if usual is not None and (taken > usual if _is_last_of_epoch(after) else taken != usual):
        yield f"{taken} micro-batches, {usual} before"


def _is_last_of_epoch(step_end: StreamEvent) -> bool:
    return abs(step_end.epoch - round(step_end.epoch)) < _CLOSE


def _gained(step_end: StreamEvent, seen: _Seen) -> float | None:
    """Return by how much of an epoch a step went on, or None where that is not known.

    The epoch before may have ended early, and then `epoch` leaps. A resumed epoch begins anywhere.
    """
    if seen.step_began_at is not None:
        return step_end.epoch - seen.step_began_at
    if seen.is_resumed and seen.epochs_begun == 1:
        return None
    return step_end.epoch - math.ceil(step_end.epoch - _CLOSE) + 1


def _evaluations(before: StreamEvent, after: StreamEvent, seen: _Seen) -> Broken:
    if not seen.is_training:
        return
    name = after.eval_set or ""
    if after.letter == "V" and seen.set_batches.get(name, seen.predictions) != seen.predictions:
        yield f"{seen.predictions} batches of eval set {name!r}, {seen.set_batches[name]} before"
    if after.letter == "V" and name in seen.sets:
        yield f"eval set {name!r} twice in an evaluation"
    if after.letter == "v" and before.letter == "V" and name != (before.eval_set or ""):
        yield "on_evaluate is of another eval set than its log"
    is_over = before.letter == "v" and after.letter not in "PV"
    if is_over and seen.all_sets not in {None, tuple(seen.sets)}:
        yield f"eval sets {tuple(seen.sets)}, {seen.all_sets} before"


def _checkpoints(_: StreamEvent, after: StreamEvent, seen: _Seen) -> Broken:
    there, before = after.checkpoints, seen.checkpoints
    if there is None:
        return
    if after.letter == "K" and after.step not in there:
        yield f"checkpoint-{after.step} is not on the disk"
    if before is None or not seen.is_training:
        return
    lost, new = set(before) - set(there), set(there) - set(before)
    if lost and after.letter not in "KT":
        yield f"checkpoints {sorted(lost)} are gone"
    # What was written without on_save, as the process was told to end, shows when training ends.
    is_cut_short = after.letter == "T" and after.step < after.max_steps
    if new - ({after.step} if after.letter == "K" else set()) and not is_cut_short:
        yield f"checkpoints {sorted(new)} came from nowhere"


_RULES = (
    _steps_and_epochs,
    _flags,
    _history,
    _best,
    _stops,
    _epochs,
    _micro_batches,
    _evaluations,
    _checkpoints,
)


def _remember(event: StreamEvent, seen: _Seen) -> None:
    if event.checkpoints is not None:
        seen.checkpoints = event.checkpoints
    if event.letter in "suS":
        _remember_step(event, seen)
    if event.letter == "E":
        seen.epochs_begun += 1
        seen.step_began_at = None
    if event.letter == "L":
        seen.logged_step = event.step
    if event.letter == "T":
        seen.is_training = False
    if event.letter in "PV":
        _remember_evaluation(event, seen)
    elif event.letter != "v":
        seen.all_sets = tuple(seen.sets) or seen.all_sets
        seen.sets, seen.predictions = [], 0


def _remember_step(event: StreamEvent, seen: _Seen) -> None:
    if event.letter == "s":
        seen.substeps = 0
    elif event.letter == "u":
        seen.substeps += 1
    elif event.letter == "S":
        taken, gained = seen.substeps + 1, _gained(event, seen)
        if seen.batches is None and gained:
            seen.batches = round(taken / gained)
        # The last step of an epoch may have fewer micro-batches.
        if seen.accumulation is None and not _is_last_of_epoch(event):
            seen.accumulation = taken
        seen.step_began_at = event.epoch


def _remember_evaluation(event: StreamEvent, seen: _Seen) -> None:
    if event.letter == "P":
        seen.predictions += 1
        return
    name = event.eval_set or ""
    seen.set_batches.setdefault(name, seen.predictions)
    seen.sets.append(name)
    seen.predictions = 0
