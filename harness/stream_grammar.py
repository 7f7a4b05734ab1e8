"""What every stream of a trainer obeys, whatever its arguments: an order, and invariants.

Letters as in stream_events.LETTERS; a stop may cut an update between two micro-batches:

    run    := I (train | eval | P* D | H)*        train  := B eval* epoch* F T
    epoch  := E update* cut? e after              update := s u* p o S after      cut := s u+
    after  := L? eval* (H? K)?                    eval   := P* V v

A run that an exception or a kill ended is a prefix of that, and a training that was cut short may
begin again with B. What depends on the arguments, such as how many steps lie between two
evaluations, only the simulator can tell (stream_replay.py).
"""

from collections.abc import Iterator, Mapping, Sequence

from podproof.harness.stream_events import StreamEvent
from podproof.harness.stream_rules import broken_rules

# From each place in the order, the letters that may follow and where they lead. The places after
# a step and after an epoch differ only in what comes when nothing is left to do.
_AFTER_STEP = {"s": "update", "e": "epoch over"}
_AFTER_EPOCH = {"E": "epoch", "F": "summary"}


def _places_after(name: str, onward: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the places of `after`, from which `onward` leads on."""
    evaluation = {"P": f"{name}: batch", "V": f"{name}: eval log"}
    save = {"K": f"{name}: saved", "H": f"{name}: push"}
    return {
        name: {"L": f"{name}: logged", **evaluation, **save, **onward},
        f"{name}: logged": {**evaluation, **save, **onward},
        f"{name}: batch": evaluation,
        f"{name}: eval log": {"v": f"{name}: evaluated"},
        f"{name}: evaluated": {**evaluation, **save, **onward},
        f"{name}: push": {"K": f"{name}: saved"},
        f"{name}: saved": dict(onward),
    }


_CALLS = {"B": "begun", "P": "outside: batch", "V": "outside: eval log", "H": "outside"}
_ORDER: Mapping[str, Mapping[str, str]] = {
    "nothing": {"I": "outside"},
    "outside": _CALLS,
    "outside: batch": {"P": "outside: batch", "V": "outside: eval log", "D": "outside"},
    "outside: eval log": {"v": "outside"},
    "begun": {"E": "epoch", "F": "summary", "P": "start: batch", "V": "start: eval log"},
    "start: batch": {"P": "start: batch", "V": "start: eval log"},
    "start: eval log": {"v": "start: evaluated"},
    "start: evaluated": {"E": "epoch", "F": "summary", "P": "start: batch", "V": "start: eval log"},
    "epoch": _AFTER_STEP,
    "update": {"u": "micro-batch", "p": "gradients"},
    "micro-batch": {"u": "micro-batch", "p": "gradients", "e": "epoch over"},
    "gradients": {"o": "optimizer"},
    "optimizer": {"S": "step over"},
    **_places_after("step over", _AFTER_STEP),
    **_places_after("epoch over", _AFTER_EPOCH),
    "summary": {"T": "outside"},
}
# A training that an exception ended may begin again, though not before it got anywhere.
_NO_RESTART = frozenset({"nothing", "outside", "begun", "outside: batch", "outside: eval log"})


def violations(events: Sequence[StreamEvent], *, is_whole: bool = True) -> tuple[str, ...]:
    """Return, in words, each way in which these events are no stream of a trainer.

    `is_whole` says that the run came to its end; otherwise any prefix will do. Past the first
    event that is out of order nothing more is looked for in the order, but the rules still are.
    """
    return (*_out_of_order(events, is_whole=is_whole), *_broken(events))


def _out_of_order(events: Sequence[StreamEvent], *, is_whole: bool) -> Iterator[str]:
    place = "nothing"
    for number, event in enumerate(events):
        onward = _ORDER[place]
        if event.letter == "B" and place not in _NO_RESTART:
            place = "begun"
        elif event.letter in onward:
            place = onward[event.letter]
        else:
            yield f"event {number}: {event.name} after {place!r}"
            return
    if is_whole and place != "outside":
        yield f"ends at {place!r}"


def _broken(events: Sequence[StreamEvent]) -> Iterator[str]:
    for number, what in broken_rules(events):
        yield f"event {number} ({events[number].name}): {what}"
