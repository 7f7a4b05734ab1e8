"""How many tokens a run will train on and evaluate: exactly where a config says, else bounded."""

from dataclasses import dataclass, replace

from podproof.compiler.interval import Interval
from podproof.compiler.throughput import Workload
from podproof.compiler.training_setup import TrainingSetup
from podproof.runtime.arithmetic import arithmetic
from podproof.runtime.plan import Plan

# A row of any use has more tokens than this.
_FEWEST_TOKENS = 16
# Bytes of a file for each token: JSON's quotes and names count, and so do languages and code that
# tokenizers split finely. English is at about 4.
_BYTES_A_TOKEN = Interval(2.0, 10.0)
# Rows of a batch are filled up to the longest of them.
_PADDING = 1.5


@dataclass(frozen=True)
class RowsSeen:
    """The rows of the files at hand: how many there are, and their mean length in bytes.

    `train` are those of the training file, before a share is taken for evaluation; `evaluation`
    those of a file of their own, 0 without one.
    """

    train: int
    evaluation: int
    mean_bytes: float


def workload(plan: Plan, setup: TrainingSetup, rows: RowsSeen | None) -> Workload | None:
    """Return what a plan computes; None when neither rows nor limits say how much that is.

    A run that may stop by itself, for want of progress, has a low end of 0.
    """
    trained = _train_rows(plan, rows)
    max_steps = int(plan.arguments.get("max_steps", -1))
    if trained is None and max_steps < 1:
        return None
    per_row = _tokens_per_row(setup, rows)
    if max_steps > 0:
        tokens = _tokens_of_steps(setup, max_steps, per_row)
    else:
        epochs = float(plan.arguments.get("num_train_epochs", 3.0))
        tokens = (trained or Interval(0.0, 0.0)).times(epochs).times(per_row.low, per_row.high)
    evaluated = _eval_tokens(plan, rows, trained, per_row)
    least = Interval(0.0, tokens.low) if _may_stop(plan) else tokens
    return Workload(
        Interval(least.low, tokens.high), evaluated, _micro_batches(setup, tokens, per_row)
    )


def _train_rows(plan: Plan, rows: RowsSeen | None) -> Interval | None:
    """Return the rows trained on; without rows at hand `max_rows` is the most there may be."""
    limit = plan.data.max_rows
    share = 1.0 - (plan.data.eval.fraction or 0.0)
    if rows is None:
        return None if limit is None else Interval(0.0, share * limit)
    return Interval.exactly(share * (rows.train if limit is None else min(limit, rows.train)))


def _tokens_per_row(setup: TrainingSetup, rows: RowsSeen | None) -> Interval:
    longest = float(setup.length * setup.sequences_per_row)
    if rows is None:
        return Interval(min(longest, _FEWEST_TOKENS), longest)
    # Both sequences of a pair hold the prompt, which the file may hold once.
    high = rows.mean_bytes / _BYTES_A_TOKEN.low * setup.sequences_per_row
    padded = high if setup.is_packed else high * _PADDING
    low = rows.mean_bytes / _BYTES_A_TOKEN.high
    return Interval(min(longest, low), min(longest, padded))


def _tokens_of_steps(setup: TrainingSetup, steps: int, per_row: Interval) -> Interval:
    sequences = float(steps * setup.batch * setup.accumulation * setup.ranks)
    if setup.is_packed:
        return Interval(0.8, 1.0).times(sequences * setup.length)
    return per_row.times(sequences)


def _eval_tokens(
    plan: Plan, rows: RowsSeen | None, trained: Interval | None, per_row: Interval
) -> Interval:
    count = _eval_rows(plan, rows, trained)
    if count is None or trained is None:
        return Interval(0.0, 0.0)
    unpacked = replace(plan, arguments={**plan.arguments, "packing": False})
    most = arithmetic(unpacked, max(1, round(trained.high))).evaluations or 0
    least = 0 if plan.arguments.get("packing") or _may_stop(plan) else most
    return Interval(count * least * per_row.low, count * most * per_row.high)


def _eval_rows(plan: Plan, rows: RowsSeen | None, trained: Interval | None) -> float | None:
    limit, fraction = plan.data.max_eval_rows, plan.data.eval.fraction
    if rows is not None and rows.evaluation:
        return float(min(rows.evaluation, limit or rows.evaluation))
    if fraction is not None and trained is not None:
        share = trained.high / (1 - fraction) * fraction
        return min(share, limit or share)
    return None if limit is None else float(limit)


def _micro_batches(setup: TrainingSetup, tokens: Interval, per_row: Interval) -> Interval:
    """Return how many micro-batches a rank computes: rows, or packed tokens, over its batch."""
    row = float(setup.length) if setup.is_packed else per_row.high
    most = tokens.high / (row * setup.batch * setup.ranks) if row else 0.0
    return Interval(0.0, most + 1)


def _may_stop(plan: Plan) -> bool:
    scorer = plan.scorer
    return any(
        limit is not None
        for limit in (
            scorer.early_stopping.patience,
            scorer.trend.stop_on_divergence,
            scorer.trend.stop_on_plateau,
        )
    )
