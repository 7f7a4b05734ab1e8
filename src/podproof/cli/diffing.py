"""`podproof diff`: every change between two scripts or configs, and whether somebody must agree."""

import argparse

from podproof.cli.remembered import past_runs
from podproof.cli.sides import side_from
from podproof.cli.terminal import EXIT_REFUSED, existing_folder, print_json, progress, show
from podproof.compiler.architecture import NotEstimated
from podproof.compiler.changes import Difference
from podproof.compiler.diff import diff
from podproof.compiler.estimate import estimate, gigabytes
from podproof.compiler.interval import Interval
from podproof.compiler.semantic import Expected, Known
from podproof.compiler.sides import Side
from podproof.harness.memory import rows_seen
from podproof.harness.surroundings import data_roots
from podproof.runtime.plan import DataSource

# Formats that the standard library reads.
_READ_HERE = frozenset({DataSource.JSONL, DataSource.JSON, DataSource.CSV})


def diff_sides(options: argparse.Namespace) -> int:
    """Print what is different; return 1 when a change needs an approval, else 0."""
    folder = existing_folder(options.config_dir, "--config-dir")
    with progress("reading both sides") as update:
        before = side_from(options.before, folder)
        after = side_from(options.after, folder)
        update("comparing")
        difference = compared(before, after)
    if options.json:
        from podproof.harness.diff_report import difference_to_dict

        print_json(difference_to_dict(difference))
    elif options.markdown:
        from podproof.harness.diff_report import difference_as_markdown

        print(difference_as_markdown(difference), end="")
    else:
        from podproof.harness.diff_report import show_difference

        show(show_difference(difference))
    return EXIT_REFUSED if difference.needing_approval else 0


def compared(before: Side, after: Side) -> Difference:
    """Return the difference, with what running both scorers and looking at the data here adds."""
    from podproof.harness.choices import choice_changes

    known = (_known(before), _known(after))
    return diff(before, after, known=known, choices=choice_changes(before, after))


def _known(side: Side) -> Known:
    return Known(train_rows=_rows(side), expected=_expected(side))


def _rows(side: Side) -> int | None:
    """Return how many rows the side trains on, when its files are at hand."""
    from podproof.runtime.data import read_data
    from podproof.runtime.errors import PodproofError

    plan = side.typed_plan
    if plan is None or plan.data.source not in _READ_HERE:
        return None
    try:
        return len(read_data(plan.data, plan.method, data_roots()).train)
    except PodproofError:
        return None  # not here, or not usable: the data gate says which


def _expected(side: Side) -> Expected:
    """Return what the run is expected to take, on the first device of its list."""
    run = side.run
    if run is None:
        return Expected()
    rows = rows_seen(run.plan.data, data_roots())
    needs = estimate(run, rows=rows, past_runs=past_runs())
    if isinstance(needs, NotEstimated):
        return Expected()
    first, memory = needs.devices[0], gigabytes(needs.memory.total)
    return Expected(
        trainable_parameters=f"{needs.trainable:,}",
        memory=f"{_range(memory)} GB per process",
        hours=None if first.hours is None else f"{_range(first.hours)} h on {first.device}",
        dollars=None if first.usd is None else f"{_range(first.usd)} USD on {first.device}",
    )


def _range(interval: Interval) -> str:
    return f"{interval.low:.3g} to {interval.high:.3g}"
