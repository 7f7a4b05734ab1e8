"""Which faults to try, found by watching undisturbed boots; and what came of trying them."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from tests.crash.invariants import committed, violations
from tests.crash.points import PROFILED, Fault, Kind, is_reading
from tests.crash.server import Boot
from tests.crash.stories import Story, Teller

Faults = tuple[Fault, ...]
# The optimizer's file of the tiny models, the largest of a checkpoint, has more bytes than this.
OPTIMIZER_BYTES = 200_000


@dataclass(frozen=True)
class Outcome:
    """What came of a series of stories; `failures` has one text for each that broke an invariant.

    A point of the reporter's thread may not come again, since it depends on how fast it was:
    `unreached` counts those.
    """

    method: str
    what: str
    points: int
    restarts: int
    unreached: int
    failures: tuple[str, ...]

    @property
    def broken(self) -> str:
        """Return all failures as one text; nothing when there is none."""
        return "\n".join(self.failures)

    @property
    def row(self) -> tuple[str, str, int, int, int, int]:
        """Return the line of a table; see HEAD."""
        numbers = (self.points, self.restarts, self.unreached, len(self.failures))
        # Plain text, since a test runner sends it from process to process.
        return (str(self.method), str(self.what), *numbers)


HEAD = ("method", "what", "points", "restarts", "unreached", "failures")


@dataclass(frozen=True)
class Campaign:
    """All that can be done to the run of one method."""

    teller: Teller
    method: str
    workers: int = 1

    @cached_property
    def calm(self) -> Story:
        """Return the undisturbed story, with all its points."""
        return self.teller.live(self.method, is_recording=True)

    def faults(self, kind: Kind) -> list[Faults]:
        """Return each fault of a kind that a first boot can meet."""
        return [(fault,) for fault in faults_of(kind, self.calm, boot=1)]

    def faults_while_recovering(self, kind: Kind) -> list[Faults]:
        """Return each fault of a kind that a second boot can meet before it trains.

        One such boot finds the optimizer of its newest checkpoint cut in half, and sets it aside.
        Another finds everything done and delivered, all but the last words said.
        """
        tears = faults_of(Kind.TEAR, self.calm, boot=1)
        half = next(fault for fault in tears if fault.limit > OPTIMIZER_BYTES // 2)
        # Whether it is the main thread that writes the last event depends on how fast the other is.
        ends = [line["point"] for line in self.calm.boots[0].trace if line.get("main")]
        last = [point for point in ends if point.split()[0] not in PROFILED][-1]
        found: list[Faults] = []
        for first in (half, Fault(Kind.KILL, last)):
            resumed = self.teller.live(self.method, (first,), is_recording=True)
            found += [(first, fault) for fault in faults_of(kind, resumed, boot=2, is_cut=True)]
        return found

    def faults_twice(self, count: int) -> list[Faults]:
        """Return pairs drawn at random, always the same: two boots, each with a fault of its own.

        The second is drawn from what the second boot met when it was watched.
        """
        draw = random.Random(count)  # noqa: S311 - a sample, not a secret
        endings = [*self.faults(Kind.KILL), *self.faults(Kind.TEAR), *self.faults(Kind.TERM)]
        pairs: list[Faults] = []
        while len(pairs) < count:
            (first,) = draw.choice(endings)
            story = self.teller.live(self.method, (first,), is_recording=True)
            kind = draw.choice((Kind.KILL, Kind.TEAR, Kind.TERM, Kind.ERROR))
            seconds = list(faults_of(kind, story, boot=2)) if len(story.boots) > 1 else []
            pairs += [(first, draw.choice(seconds))] if seconds else []
        return pairs

    def try_all(self, what: str, series: Sequence[Faults]) -> Outcome:
        """Live a story for each of the faults, and hold it against the calm one."""
        calm = self.calm
        with ThreadPoolExecutor(self.workers) as workers:
            stories = list(
                workers.map(lambda faults: self.teller.live(self.method, faults), series)
            )
        judged = [(story, violations(story, calm)) for story in stories]
        return Outcome(
            method=self.method,
            what=what,
            points=len(series),
            restarts=sum(len(story.boots) - 1 for story in stories),
            unreached=sum(len(committed(story)) < len(story.faults) for story in stories),
            failures=tuple(self._failure(story, lines) for story, lines in judged if lines),
        )

    def _failure(self, story: Story, lines: Sequence[str]) -> str:
        faults = " ".join(f'"{fault}"' for fault in story.faults)
        again = f"python -m tests.crash {self.method} {faults}"
        ends = [f"boot {number}: {_last_words(boot)}" for number, boot in enumerate(story.boots, 1)]
        return "\n    ".join([again, *ends, *lines])


def _last_words(boot: Boot) -> str:
    """Return how a boot ended; of one that hung, where each of its threads stood."""
    said = boot.said.strip().splitlines() or [""]
    is_late = any("late" in line for line in boot.trace)
    return f"exit code {boot.code}, " + ("\n".join(said[-40:]) if is_late else said[-1][:200])


def faults_of(kind: Kind, story: Story, boot: int, *, is_cut: bool = False) -> Iterator[Fault]:
    """Yield every fault of a kind for the points that a boot reached, in their order.

    With `is_cut` only for those before it trained a step to its end.
    """
    trace = story.boots[boot - 1].trace
    if is_cut:
        trace = tuple(itertools.takewhile(lambda line: "trained" not in line, trace))
    points = (line["point"] for line in trace if "point" in line)
    growth = [line for line in trace if "grown" in line]
    match kind:
        case Kind.TEAR:
            yield from (
                Fault(kind, line["after"], limit=max(1, sum(sizes) // 2))
                for line in growth
                for sizes in line["grown"].values()
            )
        case Kind.FULL:
            yield from (Fault(kind, line["after"]) for line in growth)
        case Kind.HOOK:
            yield from (Fault(kind, point) for point in points if point.startswith("on_"))
        case Kind.ERROR:
            yield from (Fault(kind, point) for point in points)
        case Kind.KILL | Kind.TERM:
            # A read changes nothing: to end there is to end at the next point that is none.
            yield from (Fault(kind, point) for point in points if not is_reading(point))


def events_of(story: Story) -> list[str]:
    """Return the points of a recorded first boot that are events of the trainer."""
    return [point for point in story.told(1, "point") if point.startswith("on_")]


def sample(series: Sequence[Faults], most: int) -> list[Faults]:
    """Return at most so many, of as many different operations as there are; always the same.

    >>> names = ["mkdir a #1", "mkdir b #1", "mkdir c #1", "rename a #1"]
    >>> chosen = sample([(Fault(Kind.KILL, name),) for name in names], 2)
    >>> sorted(faults[-1].point.split()[0] for faults in chosen)
    ['mkdir', 'rename']
    """
    shuffled = list(series)
    random.Random(most).shuffle(shuffled)  # noqa: S311 - the same sample every time
    seen: Counter[str] = Counter()
    ranked = []
    for faults in shuffled:
        operation = faults[-1].point.split()[0]
        seen[operation] += 1
        ranked.append((seen[operation], faults))
    ranked.sort(key=lambda item: item[0])
    return [faults for _, faults in ranked[:most]]


def table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a table of outcomes, with sums.

    >>> table([("sft", "kill", 20, 20, 0, 0)])[1]
    'sft      kill                        20        20         0         0'
    """
    sums = ("all", "", *(sum(column) for column in list(zip(*rows, strict=True))[2:]))
    shape = "{:<8} {:<22} {:>7} {:>9} {:>9} {:>9}"
    return [shape.format(*row) for row in (HEAD, *rows, sums)]
