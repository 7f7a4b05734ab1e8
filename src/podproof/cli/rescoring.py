"""`podproof rescore`: which checkpoint the scorers would have chosen of finished runs, and why."""

import argparse
from pathlib import Path

from podproof.cli.records import named_run
from podproof.cli.terminal import err, home, print_json, show
from podproof.monitor.history import Columns, History
from podproof.monitor.plot import check_plot, write_plot
from podproof.monitor.recording import find_histories, stored_history
from podproof.monitor.rescore import HeldOut, rescore_all
from podproof.monitor.scorers import named_scorers, scorer_of_file
from podproof.monitor.show_rescored import rescored_to_dict, show_rescored
from podproof.monitor.store import open_store
from podproof.runtime.plan import Objective


def rescore_runs(options: argparse.Namespace) -> int:
    """Print the choice of every scorer for every run; write a plot when asked to."""
    plot = None if options.plot is None else Path(options.plot)
    if plot is not None:
        check_plot(plot)
    files = [scorer_of_file(Path(file)) for file in options.scorer_file or ()]
    scorers = (*named_scorers(options.scorer or (), Objective(options.objective)), *files)
    columns = Columns(options.eval_loss, options.train_loss)
    held_out = None
    if options.held_out is not None:
        held_out = HeldOut(options.held_out, options.held_out_higher)
    histories = find_histories(options.paths, columns, lambda run: _stored(run, columns))
    runs = rescore_all(histories, scorers, held_out)
    if options.json:
        print_json([rescored_to_dict(run) for run in runs])
    else:
        show(show_rescored(runs))
    if plot is not None:
        write_plot(plot, runs)
        err().print(f"the plot is in {plot}", soft_wrap=True)
    return 0


def _stored(run: str, columns: Columns) -> History:
    with open_store(home() / "podproof.db") as store:
        return stored_history(store, named_run(store, run), columns)
