"""What every verb shares: where things are kept, consoles, progress, and how errors are shown."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.text import Text

from podproof.compiler.errors import BadConfig
from podproof.compiler.places import LocatedProblem
from podproof.harness.surroundings import home as home  # noqa: PLC0414 - every verb asks for it here
from podproof.runtime.errors import PodproofError, Problem

EXIT_REFUSED = 1
EXIT_UNKNOWN = 4
EXIT_OUT_OF_TIME = 6
EXIT_INTERRUPTED = 130

# Written to a pipe a table keeps this width, so that nothing is folded by accident.
_PIPE_WIDTH = 160
_BAR_WIDTH = 20


def out() -> Console:
    """Return the console for results; colours only on a terminal and without NO_COLOR."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def err() -> Console:
    """Return the console for progress and errors."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH, highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON document to standard output."""
    print(json.dumps(value, indent=2, sort_keys=True, allow_nan=False))


def show(renderable: RenderableType) -> None:
    """Print a result."""
    out().print(renderable)


def show_error(error: PodproofError) -> None:
    """Print every problem of an error with its way out, to standard error."""
    console = err()
    title = Text(f"{error.error_id}", style="bold red")
    count = len(error.problems)
    console.print(title + Text(f": {count} problem{'s' if count != 1 else ''}"))
    for problem in error.problems:
        console.print(_problem_lines(problem), soft_wrap=True)


def _problem_lines(problem: Problem) -> Text:
    text = Text("  ").append(problem.where, style="bold").append(f": {problem.what}")
    if isinstance(problem, LocatedProblem):
        text.append(f"\n    {problem.place}")
    if problem.way_out:
        text.append(f"\n    way out: {problem.way_out}", style="cyan")
    return text


@contextmanager
def progress(what: str) -> Iterator[Any]:
    """Show that work goes on: a spinner on a terminal, nothing in a pipe; yields `update(text)`."""
    console = err()
    if not console.is_terminal:
        yield str  # nobody watches: the text is made and dropped
        return
    with console.status(what) as status:
        yield status.update


def progress_line(what: str, share: float | None) -> str:
    """Return one line for `update`: a bar where the share that is done is known.

    >>> progress_line("rows.jsonl, 5,000 rows", 0.25)
    '━━━━━─────────────── 25 %  rows.jsonl, 5,000 rows'
    """
    if share is None:
        return escape(what)
    done = min(1.0, share)
    full = round(done * _BAR_WIDTH)
    return f"{'━' * full}{'─' * (_BAR_WIDTH - full)} {done * 100:.0f} %  {escape(what)}"


def existing_folder(value: str | None, option: str) -> Path | None:
    """Return the folder an option names, or None when it was not given; raise BadConfig."""
    if value is None:
        return None
    folder = Path(value)
    if not folder.is_dir():
        what = f"{value} is not a folder"
        raise BadConfig(Problem(option, what, "create it, or fix the path"))
    return folder
