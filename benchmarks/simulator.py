"""What the simulator reproduces of recorded streams, and how much of what is wrong it rejects.

    .venv/bin/python benchmarks/simulator.py [FOLDER | FILE ...] [--mutants]

Without a path it takes the recordings of the tests. Each is replayed event by event; with
`--mutants` also with one event deleted, doubled, or swapped with a different next one, in the
replay and in the grammar. That takes a minute or two.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from podproof.harness.recording import Recording, read_recording
from podproof.harness.simulator import Scenario, SimulatedTrainer
from podproof.harness.stream_events import StreamEvent, differing
from podproof.harness.stream_grammar import violations
from podproof.harness.stream_replay import Replayed, replay
from podproof.runtime.plan import MethodName

STREAMS = Path(__file__).parents[1] / "tests" / "streams"


def recordings(paths: list[Path]) -> list[Recording]:
    """Read the recordings in these files and folders."""
    found: list[Path] = []
    for path in paths:
        found += sorted(path.glob("*.jsonl*")) if path.is_dir() else [path]
    return [read_recording(path) for path in found]


def told(replayed: Replayed) -> str:
    """Return one line on a replay."""
    if replayed.out_of_scope is not None:
        return f"out of scope: {replayed.out_of_scope}"
    if not replayed.is_exact:
        return f"{replayed.replayed} of {replayed.events} events; {replayed.differences[0]}"
    return "; ".join(("exact", *replayed.read, *replayed.interference))


def mutants(events: tuple[StreamEvent, ...]) -> Iterator[tuple[StreamEvent, ...]]:
    """Yield the stream with one event deleted, doubled, or swapped with a different next one."""
    for at, event in enumerate(events):
        yield (*events[:at], *events[at + 1 :])
        yield (*events[:at], event, *events[at:])
        if at + 1 < len(events) and differing(event, events[at + 1]):
            yield (*events[:at], events[at + 1], event, *events[at + 2 :])


def shares_rejected(there: list[Recording]) -> tuple[int, float, float]:
    """Return the number of mutants, and the shares that the grammar and the replay reject."""
    count = by_grammar = by_replay = 0
    for recording in there:
        for events in mutants(recording.events):
            count += 1
            by_grammar += bool(violations(events, is_whole=recording.outcome == "ok"))
            by_replay += not replay(replace(recording, events=events)).is_exact
    return count, by_grammar / count, by_replay / count


def events_per_second() -> float:
    """Return the events a simulated trainer fires a second at a callback without hooks."""
    scenario = Scenario("fast", MethodName.DPO, max_steps=3000, eval_steps=50)
    scenario = replace(scenario, metric_for_best_model=None)
    started_s = time.perf_counter()
    ended = SimulatedTrainer(scenario, object()).train()
    return ended.events / (time.perf_counter() - started_s)


def main() -> None:
    """Print a line for each recording, then the figures."""
    paths = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("--")]
    there = recordings(paths or [STREAMS])
    replays = [replay(recording) for recording in there]
    for replayed in replays:
        print(f"{replayed.name:<36}{told(replayed)}")
    events = sum(replayed.events for replayed in replays)
    exact = [replayed for replayed in replays if replayed.is_exact]
    alone = [replayed for replayed in exact if not replayed.interference]
    passing = [
        recording
        for recording in there
        if not violations(recording.events, is_whole=recording.outcome == "ok")
    ]
    print(f"\n{len(exact)} of {len(there)} streams exact, {events} events; ", end="")
    print(f"{len(alone)} without anybody's interference")
    print(f"{len(passing)} of {len(there)} pass the grammar")
    print(f"{events_per_second():,.0f} events a second without hooks")
    if "--mutants" in sys.argv:
        count, by_grammar, by_replay = shares_rejected(there)
        print(f"{count} mutants: the grammar rejects {by_grammar:.1%}, the replay {by_replay:.1%}")


if __name__ == "__main__":
    main()
