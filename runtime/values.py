"""A frozen value with some fields changed, fast enough for a training hook."""

from typing import Any, TypeVar

_Value = TypeVar("_Value")


def changed(value: _Value, **fields: Any) -> _Value:
    """Return a copy of a frozen dataclass without slots, with these fields changed.

    As `dataclasses.replace`, but `__init__` does not run again, which sets one field after the
    other: 0.5 microseconds in the place of 4 for a dozen fields. Raise TypeError for a name that is
    no field.

    >>> from podproof.runtime.plan import TrendPlan
    >>> changed(TrendPlan(), window=30).window, TrendPlan().window
    (30, 20)
    """
    if not fields.keys() <= value.__dict__.keys():
        raise TypeError(f"{type(value).__name__} lacks one of {sorted(fields)}")
    copy: _Value = object.__new__(type(value))
    copy.__dict__.update(value.__dict__, **fields)
    return copy
