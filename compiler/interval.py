"""An interval: a quantity that is known only to lie between two values."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Interval:
    """All that lies from `low` to `high`, both of them included.

    >>> Interval(1.0, 2.0) + Interval.exactly(3.0)
    Interval(low=4.0, high=5.0)
    """

    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Self:
        """Return the interval that holds this value alone."""
        return cls(value, value)

    @classmethod
    def total(cls, parts: Iterable["Interval"]) -> "Interval":
        """Return the sum of intervals; 0 for none."""
        return sum(parts, Interval(0.0, 0.0))

    def __add__(self, other: "Interval") -> "Interval":
        return Interval(self.low + other.low, self.high + other.high)

    def times(self, low: float, high: float | None = None) -> "Interval":
        """Return the interval stretched by two factors, neither negative; the one where alike.

        >>> Interval(1.0, 2.0).times(0.5, 3.0)
        Interval(low=0.5, high=6.0)
        """
        return Interval(self.low * low, self.high * (low if high is None else high))

    def over(self, other: "Interval") -> "Interval":
        """Return what this divided by the other can be; both ends of the other are above 0."""
        return Interval(self.low / other.high, self.high / other.low)

    def at_most(self, other: "Interval") -> "Interval":
        """Return the interval of the smaller of the two quantities."""
        return Interval(min(self.low, other.low), min(self.high, other.high))

    def at_least(self, other: "Interval") -> "Interval":
        """Return the interval of the larger of the two quantities."""
        return Interval(max(self.low, other.low), max(self.high, other.high))

    @property
    def middle(self) -> float:
        """Return the geometric mean of the ends, the middle of what is known by its factor."""
        return float((self.low * self.high) ** 0.5)
