"""Streams of events that Hypothesis draws for a callback, simple ones first, faults and all."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from podproof.harness.documented import NEIGHBOURS
from podproof.harness.drawn import HOSTILE
from podproof.harness.streams import Change, Fault, FaultKind, FaultStream
from podproof.runtime.plan import MethodName

_LOSS = st.sampled_from([1.0, 2.0, 1.5, 0.5, 0.0, -1.0, math.nan]) | st.floats(0.1, 5.0)
_EVAL_LOSS = _LOSS | st.sampled_from([None, math.inf, -math.inf, "0.1", True, 1e308])
_MARGIN = st.sampled_from([0.5, 1.0, 2.0, 0.0, -1.0, None, math.nan])
_ACCURACY = st.sampled_from([0.5, 1.0, 0.0, None, math.nan, 1.5])
_KEYS = (
    "loss",
    "grad_norm",
    "nll_loss",
    "entropy",
    "nonfinite_microbatches",
    "eval_loss",
    "eval_near_loss",
    "eval_runtime",
    "eval_rewards/margins",
    "eval_rewards/accuracies",
    "learning_rate",
)

# About as many events has a training of two steps with an evaluation after each.
_SWEPT_EVENTS = 20

# Most streams have as many events, the longest three times that; a later fault does nothing.
_USUAL_EVENTS = 40


def _changes() -> st.SearchStrategy[tuple[Change, ...]]:
    one = st.builds(
        Change,
        log=st.integers(0, 12),
        key=st.sampled_from(_KEYS),
        value=_LOSS | HOSTILE,
        is_missing=st.booleans(),
    )
    return st.lists(one, max_size=3).map(tuple)


def _faults() -> st.SearchStrategy[tuple[Fault, ...]]:
    event = st.integers(0, _USUAL_EVENTS) | st.integers(0, 3 * _USUAL_EVENTS)
    one = st.builds(Fault, event, st.sampled_from(list(FaultKind)))
    return st.lists(one, max_size=4).map(tuple)


def _values(value: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(value, min_size=1, max_size=most).map(tuple)


def known_streams(method: MethodName) -> Iterator[FaultStream]:
    """Yield streams that few draws come upon: stops by the trend, each fault at each event."""
    flat = {"trend": {"window": 6, "stop_on_plateau": 1}}
    yield FaultStream(method, max_steps=8, eval_steps=8, scorer=flat)
    wild = {"trend": {"window": 6, "stop_on_divergence": 2}}
    losses = (*[1.0] * 6, 9.0)
    yield FaultStream(method, max_steps=9, eval_steps=9, train_losses=losses, scorer=wild)
    reward = {"objective": "reward", "reward_tolerance": 0.25}
    pairs = FaultStream(MethodName.DPO, eval_steps=1, eval_losses=(1.0, 1.125), scorer=reward)
    yield replace(pairs, margins=(0.0, 1.0))
    yield FaultStream(method, eval_steps=4, faults=(Fault(2, FaultKind.SIGNAL),))
    for event in range(8, 16):
        faults = (Fault(0, FaultKind.SIGNAL), Fault(event, FaultKind.KILL))
        yield FaultStream(method, max_steps=2, eval_on_start=True, faults=faults)
    early = {"early_stopping": {"patience": 1}}
    falling, rising_again = (2.0, 1.5, 1.0), (1.0, 2.0)
    rising = FaultStream(
        method, max_steps=3, eval_steps=1, train_losses=falling, eval_losses=rising_again
    )
    for event in range(_SWEPT_EVENTS):
        for kind in FaultKind:
            # The second one finds what the first left behind.
            faults = (Fault(event, kind), Fault(event + 6, kind))
            kill = Fault(event + 9, FaultKind.KILL)
            yield replace(rising, faults=(*faults, kill) if event % 2 else faults, scorer=early)


def streams_for(method: MethodName) -> st.SearchStrategy[FaultStream]:
    """Return the strategy of streams for a script of this method; others log other keys."""
    others = [other for other in MethodName if other is not method]
    return st.builds(
        FaultStream,
        method=st.sampled_from([method, *others]),
        max_steps=st.integers(1, 12),
        logging_steps=st.integers(1, 3),
        eval_steps=st.integers(1, 4),
        micro_batches=st.integers(1, 2),
        eval_sets=st.sampled_from([("",), ("near", "far")]),
        eval_on_start=st.booleans(),
        is_first_rank=st.sampled_from([True, True, True, False]),
        train_losses=_values(_LOSS, 12),
        eval_losses=_values(_EVAL_LOSS, 6),
        margins=_values(_MARGIN, 4),
        accuracies=_values(_ACCURACY, 4),
        changes=_changes(),
        faults=_faults(),
        scorer=st.sampled_from([dict(fields) for fields in NEIGHBOURS]),
    )
