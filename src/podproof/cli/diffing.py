"""`podproof diff`: every change between two scripts or configs, and whether somebody must agree."""

import argparse
from dataclasses import replace

from podproof.cli.sides import side_from
from podproof.cli.terminal import EXIT_REFUSED, existing_folder, print_json, progress, show
from podproof.compiler.changes import Difference
from podproof.compiler.diff import diff
from podproof.compiler.semantic import Known
from podproof.compiler.sides import Side
from podproof.harness.surroundings import data_roots


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
    """Return the difference, with what running both scorers and counting rows at hand adds."""
    from podproof.harness.choices import choice_changes

    known = (Known(train_rows=_rows(before)), Known(train_rows=_rows(after)))
    return diff(before, after, known=known, choices=choice_changes(before, after))


def _rows(side: Side) -> int | None:
    """Return how many rows the side trains on, when its files are at hand."""
    from podproof.harness.rows import READABLE_HERE
    from podproof.runtime.data import read_data
    from podproof.runtime.errors import PodproofError

    plan = side.typed_plan
    if plan is None or plan.data.source not in READABLE_HERE:
        return None
    try:
        return len(read_data(replace(plan.data), plan.method, data_roots()).train)
    except PodproofError:
        return None  # not here, or not usable: the data gate says which
