"""Which faults to try, found by watching undisturbed boots; and what came of trying them."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from tests.crash.invariants import committed, violations
from tests.crash.points import Fault, Kind
from tests.crash.stories import Story, Teller

Faults = tuple[Fault, ...]


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
    def row(self) -> tuple[str, str, int, int, int, int]:
        """Return the line of a table; see HEAD."""
        numbers = (self.points, self.restarts, self.unreached, len(self.failures))
        return (self.method, self.what, *numbers)


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

        The first boot was killed half-way through writing the optimizer of its second checkpoint,
        so the second has something to set aside.
        """
        first = next(
            fault
            for fault in faults_of(Kind.TEAR, self.calm, boot=1)
            if "checkpoint-4" in fault.point and fault.limit > 50_000
        )
        resumed = self.teller.live(self.method, (first,), is_recording=True)
        found = faults_of(kind, resumed, boot=2)
        return [(first, fault) for fault in found]

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
            failures=tuple(_failure(story, lines) for story, lines in judged if lines),
        )


def faults_of(kind: Kind, story: Story, boot: int) -> Iterator[Fault]:
    """Yield every fault of a kind for the points that a boot reached, in their order."""
    points = story.told(boot, "point")
    growth = [line for line in story.boots[boot - 1].trace if "grown" in line]
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
        case _:
            yield from (Fault(kind, point) for point in points)


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


def _failure(story: Story, lines: Sequence[str]) -> str:
    faults = " ".join(f'"{fault}"' for fault in story.faults)
    codes = [boot.code for boot in story.boots]
    return "\n    ".join([f"{faults} (exit codes {codes})", *lines])


def table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a table of outcomes, with sums.

    >>> table([("sft", "kill", 20, 20, 0, 0)])[1]
    'sft      kill                        20        20         0         0'
    """
    sums = ("all", "", *(sum(column) for column in list(zip(*rows, strict=True))[2:]))
    shape = "{:<8} {:<22} {:>7} {:>9} {:>9} {:>9}"
    return [shape.format(*row) for row in (HEAD, *rows, sums)]
