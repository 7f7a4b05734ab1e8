"""The learning rate of a run at any step, as transformers 5 computes it, without transformers."""

import math
from collections.abc import Mapping
from typing import Any

SHARES = (0.1, 0.5, 0.9, 1.0)

# Schedules whose shape needs the number of steps; without it only shares of the run can be told.
_NOMINAL_STEPS = 10_000
_DEFAULT_LEARNING_RATE = 2e-5


def learning_rates(
    arguments: Mapping[str, Any], total_steps: int | None
) -> dict[str, float] | None:
    """Return the rate at its peak and at 10, 50, 90 and 100 % of the run; None if not known.

    Not known are schedules that follow a metric, those of other names than the ones below, and
    any with a warm-up counted in steps of a run whose steps are not.
    """
    warmup = float(arguments.get("warmup_steps", 0.0))
    name = str(arguments.get("lr_scheduler_type", "linear"))
    if name not in _SHAPES or (total_steps is None and warmup >= 1 and name != "constant"):
        return None
    total = total_steps or _NOMINAL_STEPS
    warmup_steps = int(warmup) if warmup >= 1 else math.ceil(total * warmup)
    options = arguments.get("lr_scheduler_kwargs") or {}
    peak = float(arguments.get("learning_rate", _DEFAULT_LEARNING_RATE))
    try:
        rates = {
            f"{share:.0%}": peak * _factor(name, round(share * total), warmup_steps, total, options)
            for share in SHARES
        }
    except (TypeError, ValueError, KeyError, ZeroDivisionError):
        return None
    top = peak if warmup_steps < total or name == "constant" else max(rates.values())
    return {"peak": top, **rates}


def _factor(
    name: str, step: int, warmup_steps: int, total: int, options: Mapping[str, Any]
) -> float:
    if name != "constant" and step < warmup_steps:
        return step / max(1, warmup_steps)
    progress = (step - warmup_steps) / max(1, total - warmup_steps)
    return float(_SHAPES[name](progress, options))


def _cosine(progress: float, options: Mapping[str, Any]) -> float:
    cycles = float(options.get("num_cycles", 0.5))
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * progress)))


def _restarts(progress: float, options: Mapping[str, Any]) -> float:
    if progress >= 1.0:
        return 0.0
    cycles = float(options.get("num_cycles", 1))
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((cycles * progress) % 1.0))))


def _constant(_progress: float, _options: Mapping[str, Any]) -> float:
    return 1.0


def _linear(progress: float, _options: Mapping[str, Any]) -> float:
    return max(0.0, 1.0 - progress)


_SHAPES = {
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _restarts,
    "constant": _constant,
    "constant_with_warmup": _constant,
}
