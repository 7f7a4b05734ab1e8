"""The body of an `evaluation` event, made where it is read: in the reporter's thread, not a hook.

What it is made from are values that nobody changes any more. The word for the trend alone takes
longer than all else that a hook does at an evaluation.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from podproof.runtime.scorer import SCORE_KEY
from podproof.runtime.scores import Score
from podproof.runtime.trend import LossTrend, describe_trend, observe_losses

# A trend, and the losses after it that it has not seen.
UnseenTrend = tuple[LossTrend, Sequence[float | None]]


class EvaluationBody(Mapping[str, Any]):
    """What is told of one evaluation: losses, score, trend and everything that was logged."""

    def __init__(
        self, eval_set: str, score: Score, trend: UnseenTrend, logs: Mapping[str, Any]
    ) -> None:
        """Keep the values; `logs` is a copy that nobody else has, with the score in it."""
        self._given = (eval_set, score, trend, logs)
        self._made: Mapping[str, Any] | None = None

    def __getitem__(self, key: str) -> Any:
        """Return one field."""
        return self._fields[key]

    def __iter__(self) -> Iterator[str]:
        """Go through the names of the fields."""
        return iter(self._fields)

    def __len__(self) -> int:
        """Count the fields."""
        return len(self._fields)

    @property
    def _fields(self) -> Mapping[str, Any]:
        if self._made is None:
            self._made = _evaluation_fields(*self._given)
        return self._made


def _evaluation_fields(
    eval_set: str, score: Score, trend: UnseenTrend, logs: Mapping[str, Any]
) -> Mapping[str, Any]:
    seen = observe_losses(*trend)
    return {
        "eval_loss": logs.get(f"eval_{eval_set}_loss" if eval_set else "eval_loss"),
        "score": score.value,
        "checkpoint_score": logs[SCORE_KEY],
        "components": dict(score.components),
        "trend": describe_trend(seen).value,
        "nonfinite_train_logs": seen.nonfinite_count,
        "metrics": {key: value for key, value in logs.items() if key != SCORE_KEY},
    }
