"""The way out of each thing that can be wrong with a row."""

from collections.abc import Sequence
from dataclasses import replace

from podproof.runtime.errors import Problem

# By words of the problem, the first that fit; what the pod says stays as short as it is.
_WAYS_OUT = (
    ("byte 0x8b in position 1", "the file is compressed: gunzip it, the pod reads plain text"),
    ("not JSON", "one JSON object on each line; see what json.loads says of this one"),
    ("must be a JSON object", "write the columns as an object: {...}"),
    ("more cells", "quote cells that hold a comma or a line end"),
    ("has the role", "rename it: human is user, gpt and bot are assistant"),
    ("has no content", "write what was said, or take the turn out"),
    ("content that is no text", "keep the text parts only; images are not trained on"),
    ("surrogate", "write the file as UTF-8 with whole characters"),
    ("no assistant turn", "add the answer, or take the row out"),
    ("are the same", "take the row out: it can only add noise"),
    ("do not begin alike", "let both conversations begin with the same turns, or add a prompt"),
    ("must end with a turn of the user", "move the answer into the other column"),
    ("both text or both messages", "write both columns alike"),
    ("the first row has", "write all rows alike, or put them into a file of their own"),
    ("is missing", "fill the column, or rename another with data.columns"),
    ("is empty", "fill it, or take the row out"),
    ("leaves none to answer", "raise method.max_length, or shorten the prompt"),
    ("lies beyond max_length", "raise method.max_length, or shorten what comes before"),
)


def with_ways_out(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Return the problems, each with a way out; one that has its own keeps it."""
    return tuple(
        problem if problem.way_out else replace(problem, way_out=_way_out(problem.what))
        for problem in problems
    )


def _way_out(what: str) -> str:
    fitting = (way_out for words, way_out in _WAYS_OUT if words in what)
    return next(fitting, "mend the row, or take it out")
