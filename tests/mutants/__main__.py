"""Judge every mutant of the scorer and the callback: `make mutants`.

Prints how many the gates refuse, by module, and who survives, why. Exit 1 when fewer than 95 of
100 are refused, a survivor has no explanation, or an explanation no survivor.
"""

import argparse
import multiprocessing
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from tests.mutants.judge import EXPLAINED, Judged, all_mutants, judge, killer_of
from tests.mutants.scripts import MODULES

LEAST_SHARE = 0.95


def main(argv: Sequence[str] | None = None) -> int:
    """Judge the mutants and print what came of it; return the exit code."""
    options = _options(argv)
    unharmed = killer_of(None)
    if unharmed is not None:
        sys.stderr.write(f"the script without a mutant is refused by {unharmed}\n")
        return 1
    numbers = [number for number, it in enumerate(all_mutants()) if options.only in it.name]
    if options.sample:
        numbers = sorted(random.Random(0).sample(numbers, options.sample))  # noqa: S311 - no secret
    shown = track(
        _judged(numbers, options.jobs),
        total=len(numbers),
        description="mutants",
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    judged = sorted(shown, key=lambda item: item[0])
    return _report([item for _, item in judged], is_whole=len(numbers) == len(all_mutants()))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (2)")
    parser.add_argument("--sample", type=int, metavar="N", help="judge N of them, always the same")
    parser.add_argument("--only", default="", metavar="TEXT", help="those with TEXT in their name")
    return parser.parse_args(argv)


def _judged(numbers: Sequence[int], jobs: int) -> Iterator[tuple[int, Judged]]:
    with multiprocessing.Pool(jobs) as pool:
        yield from pool.imap_unordered(_judge_number, numbers, chunksize=4)


def _judge_number(number: int) -> tuple[int, Judged]:
    return number, judge(all_mutants()[number])


def _report(judged: Sequence[Judged], *, is_whole: bool) -> int:
    console = Console(highlight=False, soft_wrap=True)
    survivors = [item for item in judged if item.killed_by is None]
    console.print(_table(judged))
    for item in survivors:
        console.print(Text(f"survived: {item.name}\n  {item.explanation or 'UNEXPLAINED'}"))
    gone = EXPLAINED.keys() - {item.name for item in survivors} if is_whole else ()
    for name in sorted(gone):
        console.print(Text(f"explained, and no survivor: {name}"))
    share = 1 - len(survivors) / len(judged) if judged else 0.0
    unexplained = [item for item in survivors if item.explanation is None]
    console.print(
        f"killed: {len(judged) - len(survivors)} of {len(judged)} ({share:.1%}); "
        f"survivors without an explanation: {len(unexplained)}"
    )
    return int(share < LEAST_SHARE or bool(unexplained) or bool(gone))


def _table(judged: Sequence[Judged]) -> Table:
    table = Table("module", "mutants", "killed", "share", "by scorer", "by dryrun", box=None)
    for module in MODULES:
        killers = [item.killed_by for item in judged if item.module == module]
        killed = [killer for killer in killers if killer is not None]
        gates = Counter(killer.partition(".")[0] for killer in killed)
        share = f"{len(killed) / len(killers):.1%}" if killers else ""
        row = (module, len(killers), len(killed), share, gates["scorer"], gates["dryrun"])
        table.add_row(*map(str, row))
    return table


if __name__ == "__main__":
    sys.exit(main())
