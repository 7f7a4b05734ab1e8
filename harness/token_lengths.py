"""How long rows are in tokens: quantiles, a histogram, and that as one line of characters."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

_BARS = "·▁▂▃▄▅▆▇█"
_BINS = 12


@dataclass(frozen=True)
class TokenLengths:
    """The lengths of the rows of one part; `bins` are rows below equal steps up to the longest."""

    rows: int
    tokens: int
    median: int
    p90: int
    p99: int
    longest: int
    longer_than_max: int
    bins: tuple[tuple[int, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        named = {name: getattr(self, name) for name in ("rows", "tokens", "median", "p90", "p99")}
        more = {"longest": self.longest, "longer_than_max_length": self.longer_than_max}
        bins = [{"tokens_up_to": upper, "rows": count} for upper, count in self.bins]
        return {**named, **more, "histogram": bins}

    def line(self) -> str:
        """Return the histogram as bars, and the quantiles."""
        quantiles = f"median {self.median:,}, 99 % up to {self.p99:,}, longest {self.longest:,}"
        return f"{_bars(tuple(count for _, count in self.bins))} {quantiles}"


def token_lengths(lengths: Counter[int], max_length: int | None) -> TokenLengths | None:
    """Return the statistics of rows counted by length, or None when there are none.

    >>> token_lengths(Counter({4: 1, 8: 98, 60: 1}), 32).line()
    '▁█·········▁ median 8, 99 % up to 8, longest 60'
    """
    rows = lengths.total()
    if not rows:
        return None
    longest = max(lengths)
    return TokenLengths(
        rows=rows,
        tokens=sum(length * count for length, count in lengths.items()),
        median=_quantile(lengths, 0.5),
        p90=_quantile(lengths, 0.9),
        p99=_quantile(lengths, 0.99),
        longest=longest,
        longer_than_max=sum(
            count for length, count in lengths.items() if length > (max_length or longest)
        ),
        bins=_binned(lengths, longest),
    )


def _quantile(lengths: Counter[int], share: float) -> int:
    """Return the least length that at least this share of the rows does not exceed."""
    below = 0
    for length in sorted(lengths):
        below += lengths[length]
        if below >= share * lengths.total():
            return length
    return 0


def _binned(lengths: Counter[int], longest: int) -> tuple[tuple[int, int], ...]:
    width = max(1, -(-longest // _BINS))
    counts = Counter[int]()
    for length, count in lengths.items():
        counts[max(0, length - 1) // width] += count
    return tuple((width * (number + 1), counts[number]) for number in range(max(counts) + 1))


def _bars(counts: tuple[int, ...]) -> str:
    most = max(counts)
    # What is there at all shows, however little beside the most.
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts)
