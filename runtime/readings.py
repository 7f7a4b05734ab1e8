"""What a trainer logged, read once into a value: its kind, its loss, its margin and its accuracy.

A trainer's log is a dictionary whose keys tell what it is. As measured with transformers 5.23 and
TRL 1.16: the final summary has "train_loss", a train log has "loss", the rest may be evaluations.
One eval set logs `eval_loss`; several log one entry each, with `eval_NAME_loss` and
`eval_NAME_runtime`, and TRL's own keys (`eval_rewards/margins`) without the name. SFT logs the
share of tokens predicted rightly, DPO and ORPO the margin between the rewards of the chosen and the
rejected answer and the share of pairs ranked rightly; a share of 1.0 is common, and then only the
loss tells two checkpoints apart. Nothing that differs between ranks (`*_runtime`, `*_per_second`)
is ever read as a value.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# Where a loss that the trainer has patched up still shows, whatever the method.
_READ_SIGNS = ("grad_norm", "entropy", "nll_loss")


class LogKind(StrEnum):
    """What a log is; `other` is what somebody else logged, and nothing is read from it."""

    TRAIN = "train"
    EVALUATION = "evaluation"
    SUMMARY = "summary"
    OTHER = "other"


@dataclass(frozen=True)
class Measures:
    """What a method measures beside its loss; None where it is absent or unusable.

    `margin` is in units of the method's reward. `accuracy` is a share from 0 to 1: of pairs ranked
    rightly (DPO, ORPO), or of tokens predicted rightly (SFT).
    """

    margin: float | None = None
    accuracy: float | None = None


NO_MEASURES = Measures()


@dataclass(frozen=True)
class Reading:
    """One log, read: an unusable loss is None, `eval_set` the name of one of several eval sets.

    The loss of a train log is unusable too when the log says that something beneath it was not
    finite: the trainer puts the average, or zero, in the place of a loss that is NaN.
    """

    kind: LogKind
    step: int
    loss: float | None
    measures: Measures
    eval_set: str = ""


def read_log(entry: Mapping[str, Any], step: object = None) -> Reading:
    """Return what one entry of a trainer's `log_history` says, or one `logs` of its on_log.

    The latter has no step of its own: give it `state.global_step`.

    >>> read_log({"eval_loss": 0.5, "eval_rewards/margins": 1.5, "step": 10}).measures
    Measures(margin=1.5, accuracy=None)
    >>> read_log({"eval_faq_loss": 2.0, "eval_faq_runtime": 0.1, "step": 10}).eval_set
    'faq'
    """
    kind, eval_set = _log_kind(entry)
    prefix = "eval_" if kind is LogKind.EVALUATION else ""
    loss_key = f"{prefix}{eval_set}_loss" if eval_set else f"{prefix}loss"
    step = entry.get("step", 0) if step is None else step
    is_train = kind is LogKind.TRAIN
    return Reading(
        kind,
        step if isinstance(step, int) else 0,
        read_train_loss(entry) if is_train else usable_loss(entry.get(loss_key)),
        Measures(usable_loss(entry.get(f"{prefix}rewards/margins")), _read_accuracy(entry, prefix)),
        eval_set,
    )


def is_train_log(entry: Mapping[str, Any]) -> bool:
    """Tell whether a log has a train loss, and is not the summary at the end.

    The summary is not told by "train_runtime": with include_num_input_tokens_seen every train log
    has that too.
    """
    return "loss" in entry and "train_loss" not in entry


def read_train_loss(entry: Mapping[str, Any]) -> float | None:
    """Return the loss of a train log as its Reading has it, for those who need no more of it.

    >>> read_train_loss({"loss": 0.0, "grad_norm": math.nan}) is None
    True
    """
    return None if _hides_nonfinite(entry) else usable_loss(entry.get("loss"))


def usable_loss(value: object) -> float | None:
    """Return a finite number as float; None for anything else, booleans and text included.

    >>> usable_loss(2), usable_loss(True), usable_loss(math.nan), usable_loss(10**400)
    (2.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _log_kind(entry: Mapping[str, Any]) -> tuple[LogKind, str]:
    """Return the kind, and for one of several eval sets its name."""
    if is_train_log(entry):
        return LogKind.TRAIN, ""
    if "train_loss" in entry:
        return LogKind.SUMMARY, ""
    if "eval_loss" in entry:
        return LogKind.EVALUATION, ""
    # An evaluation that lost its loss still has the time it took. min(), since a resumed run finds
    # the keys of its log sorted.
    sets = [key[5:-8] for key in entry if key.startswith("eval_") and key.endswith("_runtime")]
    return (LogKind.EVALUATION, min(sets)) if sets else (LogKind.OTHER, "")


def _hides_nonfinite(entry: Mapping[str, Any]) -> bool:
    """Tell whether a train log shows NaN or infinity beside a loss that may look well."""
    count = entry.get("nonfinite_microbatches")
    if isinstance(count, int | float) and count > 0:
        return True
    for key in _READ_SIGNS:
        sign = entry.get(key)
        if isinstance(sign, float) and not math.isfinite(sign):
            return True
    return False


def _read_accuracy(entry: Mapping[str, Any], prefix: str) -> float | None:
    # DPO logs both; which one counts is told by the keys and never by the values, so that it does
    # not change within a run.
    key = f"{prefix}rewards/accuracies"
    value = usable_loss(entry.get(key if key in entry else f"{prefix}mean_token_accuracy"))
    return value if value is not None and 0.0 <= value <= 1.0 else None
