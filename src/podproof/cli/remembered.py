"""What the gates may look at when podproof is asked on a command line: data, home and past runs."""

from collections.abc import Callable
from dataclasses import replace

from podproof.cli.terminal import home, progress_line
from podproof.compiler.throughput import PastRun
from podproof.harness.surroundings import surroundings
from podproof.harness.verdict import Surroundings


def all_surroundings(update: Callable[[str], object] | None = None) -> Surroundings:
    """Return the usual surroundings, and what the runs in our store got done before.

    `update` is told in one line how far a gate is; without one they may go to another process.
    """
    there = replace(surroundings(), past_runs=past_runs())
    if update is None:
        return there

    def told(what: str, share: float | None) -> None:
        update(progress_line(what, share))

    return replace(there, on_progress=told)


def past_runs() -> tuple[PastRun, ...]:
    """Return what the runs in our store got done; none from a store that is not there or broken."""
    path = home() / "podproof.db"
    if not path.is_file():
        return ()
    from podproof.monitor.errors import StoreUnavailable
    from podproof.monitor.store import open_store

    try:
        with open_store(path) as store:
            return store.past_runs()
    except StoreUnavailable:
        # A launch will say what is wrong with it; a gate can do without what it remembers.
        return ()
