"""Print the score of the gates on the planted faults and the good configs: `make faults`.

Exit 1 when a fault is not refused by its gate with a message that names it, or a good config is.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from podproof.harness.warm import WarmTrainer
from tests.faults.corpus import Judged, cases, judge


def main(argv: Sequence[str] | None = None) -> int:
    """Judge every case; return 1 when a fault that must be caught is not, or a good one refused."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="those with TEXT in their name")
    only = parser.parse_args(argv).only
    with WarmTrainer() as warm:
        faults, good = (_judged(folder, only, warm) for folder in ("planted", "good"))
    console = Console()
    console.print(_table("layer", faults, [item.case.layer for item in faults]))
    console.print(_table("gate", faults, [item.case.gate for item in faults]))
    missed = [item for item in faults if not item.is_caught]
    for item in missed:
        console.print(f"missed: {item.case.name}: {item.case.planted} ({item.case.missed})")
    alarms = [item for item in good if item.is_refused]
    for item in alarms:
        console.print(f"false alarm: {item.case.name}: {', '.join(item.problems)}")
    peers = [item for item in faults if item.case.peers]
    console.print(f"caught: {len(faults) - len(missed)} of {len(faults)}")
    console.print(f"of the battery peers were asked: {_caught(peers)} of {len(peers)}")
    console.print(f"false alarms: {len(alarms)} of {len(good)} good configs")
    return int(bool(alarms) or any(not item.case.missed for item in missed))


def _judged(folder: str, only: str, warm: WarmTrainer) -> list[Judged]:
    found = []
    chosen = [case for case in cases(folder) if only in case.name]
    for case in track(chosen, description=folder, console=Console(stderr=True)):
        with _empty_folder() as place:
            found.append(judge(case, place, warm))
    return found


@contextmanager
def _empty_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _table(title: str, faults: list[Judged], keys: list[str]) -> Table:
    table = Table(title, "caught", "planted", box=None)
    planted = Counter(keys)
    caught = Counter(key for key, item in zip(keys, faults, strict=True) if item.is_caught)
    for key in sorted(planted):
        table.add_row(key, str(caught[key]), str(planted[key]))
    return table


def _caught(faults: list[Judged]) -> int:
    return sum(item.is_caught for item in faults)


if __name__ == "__main__":
    sys.exit(main())
