"""What is worth knowing of a good row: it can be trained on, and may not be what was meant."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Any

from podproof.compiler.credentials import SECRET_SHAPES
from podproof.runtime.rows import Row, row_texts

# What the text of a credential surely holds: finding that is a hundred times as fast as its shape.
CREDENTIAL_MARKS: Mapping[str, tuple[str, ...]] = {
    "a Hugging Face token": ("hf_",),
    "a RunPod API key": ("rpa_",),
    "an AWS access key": ("AKIA", "ASIA"),
    "a GitHub token": ("ghp_", "gho_", "ghs_", "github_pat_"),
    "an OpenAI-style key": ("sk-",),
    "a private key": ("PRIVATE KEY-----",),
    "a JSON web token": ("eyJ",),
}
_MARKED_SHAPES = tuple(
    (mark, shape)
    for kind, shape in SECRET_SHAPES.items()
    for mark in CREDENTIAL_MARKS.get(kind, ("",))
)
_BEFORE = frozenset({"system", "developer"})
_ANSWERS = ("completion", "chosen")
# So few rows may well have the same answer.
_FEWEST_ALIKE = 10


class Sign(IntEnum):
    """One thing to know of a row, as a bit: a row may have many."""

    ENDS_WITH_USER = 1
    USER_TWICE = 2
    ASSISTANT_FIRST = 4
    CREDENTIAL = 8
    SPECIAL_TOKEN = 16
    LOST_CHARACTER = 32
    SAME_ANSWER = 64
    SAME_REJECTED = 128


# In words that follow how many rows it is.
_SIGN_WORDS: Mapping[Sign, str] = {
    Sign.ENDS_WITH_USER: "end with a turn of the user that nobody answers",
    Sign.USER_TWICE: "have two turns of the user in a row",
    Sign.ASSISTANT_FIRST: "begin with a turn of the assistant",
    Sign.CREDENTIAL: "hold what looks like a credential, which the model would learn and repeat",
    Sign.SPECIAL_TOKEN: "hold a special token of the tokenizer inside a turn",
    Sign.LOST_CHARACTER: "hold NUL or U+FFFD, which a wrong encoding leaves behind",
}
_ALIKE_WORDS: Mapping[Sign, str] = {
    Sign.SAME_ANSWER: "have the same answer",
    Sign.SAME_REJECTED: "reject the same answer",
}


@dataclass(frozen=True)
class SignReader:
    """Reads the signs of rows; `special` finds the tokenizer's special tokens in a text.

    `openings` are what these tokens begin with: a text without any of them holds none.
    """

    special: re.Pattern[str] | None
    openings: tuple[str, ...]

    @classmethod
    def of(cls, special_tokens: Sequence[str]) -> "SignReader":
        """Return a reader that knows these special tokens."""
        longest_first = sorted(filter(None, special_tokens), key=len, reverse=True)
        alternatives = "|".join(map(re.escape, longest_first))
        openings = tuple(sorted({token[:2] for token in longest_first}))
        return cls(re.compile(alternatives) if alternatives else None, openings)

    def signs(self, row: Row, first: Row) -> int:
        """Return the signs of a row, summed; its answers are held against the first row's.

        This is asked of every row of a file, so the whole text is asked first.
        """
        found = _alike(row, first)
        text = "\n".join(row_texts(row))
        if holds_credential(text):
            found |= Sign.CREDENTIAL
        # What could not be read is replaced by the first; the second ends strings in C.
        if "\ufffd" in text or "\x00" in text:
            found |= Sign.LOST_CHARACTER
        is_special = _holds_any(text, self.openings)
        for turns in _conversations(row):
            found |= _order(turns)
            if is_special and self._is_special(turns):
                found |= Sign.SPECIAL_TOKEN
        return found

    def _is_special(self, turns: Sequence[Any]) -> bool:
        contents = (turn.get("content") for turn in turns)
        texts = (text for text in contents if isinstance(text, str))
        return self.special is not None and any(map(self.special.search, texts))


def holds_credential(text: str) -> bool:
    """Tell whether a text holds what looks like a credential."""
    for mark, shape in _MARKED_SHAPES:  # noqa: SIM110 - any() takes four times as long
        if mark in text and shape.search(text):
            return True
    return False


def _holds_any(text: str, marks: Sequence[str]) -> bool:
    for mark in marks:  # noqa: SIM110 - as above
        if mark in text:
            return True
    return False


@dataclass(frozen=True)
class SignTally:
    """How many rows of one part have each sign, and the number of the first that does."""

    rows: int
    counts: Mapping[Sign, int]
    first: Mapping[Sign, int]

    @property
    def firsts(self) -> frozenset[int]:
        """Return the numbers of the rows whose places are told."""
        return frozenset(self.first[sign] for sign in _SIGN_WORDS if sign in self.first)

    def to_dict(self) -> dict[str, int]:
        """Return the counts as JSON values."""
        return {str(sign.name).lower(): count for sign, count in self.counts.items()}


def tally_signs(signs: Sequence[int], roles: Sequence[int], role: int) -> SignTally:
    """Count the signs of the rows that have a role."""
    counts: Counter[Sign] = Counter()
    first: dict[Sign, int] = {}
    for number, (has, its_role) in enumerate(zip(signs, roles, strict=True)):
        if has and its_role == role:
            mine = [sign for sign in Sign if has & sign]
            counts.update(mine)
            first = dict.fromkeys(mine, number) | first
    return SignTally(sum(its_role == role for its_role in roles), counts, first)


def sign_notices(part: str, tally: SignTally, where: Mapping[int, str]) -> Iterator[str]:
    """Say which signs there are, each with the place of its first row; show no text of a row.

    That all answers are one is told of ten rows or more.
    """
    for sign, words in _SIGN_WORDS.items():
        if sign in tally.first:
            count = f"{tally.counts[sign]:,} of {tally.rows:,} {part} rows"
            yield f"{count} {words} ({where[tally.first[sign]]})"
    for sign, words in _ALIKE_WORDS.items():
        if tally.counts.get(sign) == tally.rows >= _FEWEST_ALIKE:
            yield f"all {tally.rows:,} {part} rows {words}"


def _conversations(row: Row) -> Iterator[Sequence[Any]]:
    """Yield the whole conversations of a row; what is rejected need not be in order."""
    prompt = row.columns.get("prompt")
    before = prompt if isinstance(prompt, list) else ()
    for name in ("messages", *_ANSWERS):
        turns = row.columns.get(name)
        if isinstance(turns, list):
            yield (*before, *turns)


def _order(turns: Sequence[Any]) -> int:
    roles = [turn["role"] for turn in turns]
    while roles and roles[0] in _BEFORE:
        del roles[0]
    found = 0
    if roles and roles[-1] == "user":
        found |= Sign.ENDS_WITH_USER
    if roles and roles[0] == "assistant":
        found |= Sign.ASSISTANT_FIRST
    if ("user", "user") in pairwise(roles):
        found |= Sign.USER_TWICE
    return found


def _alike(row: Row, first: Row) -> int:
    found = 0
    answer = _answer(row)
    if answer and answer == _answer(first):
        found |= Sign.SAME_ANSWER
    rejected = row.columns.get("rejected")
    if rejected is not None and rejected == first.columns.get("rejected"):
        found |= Sign.SAME_REJECTED
    return found


def _answer(row: Row) -> Any:
    """Return what is learnt as the answer; None for text, which has none."""
    messages = row.columns.get("messages")
    if messages is not None:
        return [turn.get("content") for turn in messages if turn["role"] == "assistant"]
    return next((row.columns[name] for name in _ANSWERS if row.columns.get(name)), None)
