"""Is there room for an answer: a prompt that fills max_length leaves nothing to learn."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from podproof.runtime.errors import Problem
from podproof.runtime.plan import MethodName
from podproof.runtime.rows import BadRow, Row
from podproof.runtime.tally import RowTally

# ORPO cuts at this length where max_length is null; the others do not cut.
_ROOM_LENGTHS = {MethodName.ORPO: 512}


def prompt_text(columns: Mapping[str, Any], render: Callable[[Sequence[Any]], str]) -> str:
    """Return all that stands before the answer, or "" for rows without a prompt of their own.

    `render` makes the text of a conversation that an answer shall follow.
    """
    prompt = columns.get("prompt")
    if prompt is None and "chosen" in columns:
        pairs = zip(columns["chosen"], columns["rejected"], strict=False)
        prompt = [one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return render(prompt) if isinstance(prompt, list) and prompt else prompt or ""


def room_checked(row: Row, tokens: Sequence[int], bos: int | None, limit: int) -> Row | BadRow:
    """Return a row whose prompt leaves room for an answer as it is; `tokens` are the prompt's.

    ORPO puts the opening token `bos` before a prompt that lacks it.
    """
    length = len(tokens) + (bool(tokens) and bos is not None and tokens[0] != bos)
    if length < limit:
        return row
    what = f"the prompt has {length} tokens, so max_length={limit} leaves none to answer"
    return BadRow((Problem(row.where, what),))


def room_limit(
    method: MethodName, max_length: int | None, truncation_mode: str | None
) -> int | None:
    """Return the tokens that a prompt must not fill, or None where no answer is cut away.

    SFT and DPO drop rows whose prompt does. ORPO divides by the length of an empty answer, and
    from that step on every weight is NaN.
    """
    if truncation_mode == "keep_end":
        return None
    return max_length or _ROOM_LENGTHS.get(method)


def room_tally(use: str) -> RowTally:
    """Return an empty tally of rows, by the room that is left for an answer."""
    return RowTally("method.max_length", "raise it, or shorten or take out these rows", use)
