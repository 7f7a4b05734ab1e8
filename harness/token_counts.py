"""The tokens of every row: is there room for an answer, what is cut away, how long are they."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any

from podproof.harness.chat_template import ChatTemplate, Rendered, TemplateRefused
from podproof.harness.tokenizer import TokenCounter
from podproof.runtime.errors import Problem
from podproof.runtime.plan import MethodName, Plan
from podproof.runtime.room import prompt_text, room_checked, room_limit, room_tally
from podproof.runtime.rows import BadRow, Row, is_conversation
from podproof.runtime.tally import RowTally

TRAIN, EVAL = "train", "eval"

_BATCH_ROWS = 1_000
# A single row says nothing of the others.
_FEWEST_ROWS = 2
_USES = {TRAIN: "trained on", EVAL: "evaluated on"}
_ANSWERS = ("messages", "text", "completion", "chosen", "rejected")


@dataclass(frozen=True)
class CutPlan:
    """Where the trainer cuts.

    `room` is what a prompt must not fill, `length` where sequences end (None: nowhere), and with
    `is_assistant_only` only what the template marks is learnt.
    """

    method: MethodName
    room: int | None
    length: int | None
    is_assistant_only: bool

    @property
    def keeps_end(self) -> bool:
        """Tell whether sequences lose their beginning, and not their end."""
        return self.room is None and self.length is not None


@dataclass
class TokenTally:
    """The rows of one part in tokens.

    `lengths` counts rows by their longest sequence. `unspoken` are rows that are cut before the
    assistant says a word, `alike` pairs whose answers are cut to the same tokens; both train, on
    nothing that was meant. `refused` are rows that the chat template refuses.
    """

    room: RowTally
    lengths: Counter[int] = field(default_factory=Counter)
    unspoken: int = 0
    alike: int = 0
    refused: RowTally = field(default_factory=lambda: RowTally("model.chat_template"))


@dataclass(frozen=True)
class _Texts:
    row: Row
    prompt: str
    wholes: tuple[Rendered, ...]


def cut_plan(plan: Plan) -> CutPlan:
    """Return where the plan's trainer cuts."""
    arguments = plan.arguments
    max_length = arguments.get("max_length")
    # Packing joins sequences and cuts what comes out; a row by itself is not cut.
    is_whole = bool(arguments.get("packing"))
    return CutPlan(
        method=plan.method,
        room=room_limit(plan.method, max_length, arguments.get("truncation_mode")),
        length=None if is_whole else room_limit(plan.method, max_length, None),
        is_assistant_only=bool(arguments.get("assistant_only_loss")),
    )


def count_tokens(
    rows: Iterable[tuple[str, Row]], counter: TokenCounter, cut: CutPlan
) -> dict[str, TokenTally]:
    """Encode every row, given with its part, as the trainer will; return a tally for each part.

    Rows are encoded a thousand at a time, so memory does not grow with their number.
    """
    tallies: dict[str, TokenTally] = {}
    rows = iter(rows)
    while batch := list(islice(rows, _BATCH_ROWS)):
        for part in {part for part, _ in batch}:
            tally = tallies.setdefault(part, TokenTally(room_tally(_USES[part])))
            of_part = [row for its_part, row in batch if its_part == part]
            _count_batch(list(_rendered(of_part, counter, tally)), counter, cut, tally)
    return tallies


def refused_rows(tally: TokenTally) -> tuple[Problem, ...]:
    """Return the rows that the chat template refuses; the trainer stops at the first of them."""
    if not tally.refused.bad:
        return ()
    what = f"it refuses {tally.refused.bad} of {tally.room.rows + tally.refused.bad} rows"
    way_out = "mend these rows, or set model.chat_template to one that takes them"
    return (*tally.refused.shown, Problem("model.chat_template", what, way_out))


def unspoken_rows(part: str, tally: TokenTally, cut: CutPlan) -> Iterator[Problem]:
    """Refuse a part of which more than half is cut before the assistant says a word."""
    rows = tally.lengths.total()
    if rows < _FEWEST_ROWS or tally.unspoken <= rows / 2:
        return
    count = f"{tally.unspoken:,} of {rows:,} {part} rows"
    what = f"{cut.length} tokens end before the assistant says a word in {count}"
    way_out = f"raise it (the longest row has {max(tally.lengths):,}), or shorten what comes before"
    yield Problem("method.max_length", what, way_out)


def _rendered(batch: Sequence[Row], counter: TokenCounter, tally: TokenTally) -> Iterator[_Texts]:
    for row in batch:
        try:
            yield _texts(row, counter)
        except TemplateRefused as error:
            what = f"the chat template refuses the row: {error}"
            tally.refused.add(BadRow((Problem(row.where, what),)))


def _texts(row: Row, counter: TokenCounter) -> _Texts:
    template = counter.template or ChatTemplate("", {})

    def render(messages: Sequence[Any]) -> str:
        return template.render(messages, add_generation_prompt=True).text

    prompt = row.columns.get("prompt")
    wholes = []
    for answer in (row.columns[name] for name in _ANSWERS if row.columns.get(name)):
        if isinstance(answer, list):
            turns = [*(prompt or ()), *answer]
            wholes.append(template.render(turns, tools=row.columns.get("tools")))
        else:
            text = (prompt or "") + answer
            eos = "" if text.endswith(counter.eos_token) else counter.eos_token
            wholes.append(Rendered(text + eos, ()))
    return _Texts(row, prompt_text(row.columns, render), tuple(wholes))


def _count_batch(
    texts: Sequence[_Texts], counter: TokenCounter, cut: CutPlan, tally: TokenTally
) -> None:
    if not texts:
        return
    # As TRL does: templates bring their special tokens, ORPO puts its own, the others ask.
    is_special = not is_conversation(texts[0].row) and cut.method is not MethodName.ORPO
    prompts = counter.encode([item.prompt for item in texts])
    flat = [whole.text for item in texts for whole in item.wholes]
    encoded = iter(counter.encode(flat, add_special_tokens=is_special))
    for item, prompt in zip(texts, prompts, strict=True):
        wholes = list(islice(encoded, len(item.wholes)))
        longest = max(map(len, wholes))
        tally.lengths[longest] += 1
        row = _with_room(item, prompt, counter, cut)
        if isinstance(row, Row) and cut.is_assistant_only:
            row = _with_something_to_learn(item, len(prompt), counter, cut)
        tally.room.add(row)
        if cut.length is not None and longest > cut.length and isinstance(row, Row):
            tally.unspoken += _is_unspoken(item, counter, cut)
            tally.alike += _is_alike(wholes, cut, cut.length)


def _with_room(item: _Texts, prompt: Any, counter: TokenCounter, cut: CutPlan) -> Row | BadRow:
    if cut.room is None or not item.prompt:
        return item.row
    return room_checked(item.row, prompt.ids, counter.bos_id, cut.room)


def _with_something_to_learn(
    item: _Texts, prompt_tokens: int, counter: TokenCounter, cut: CutPlan
) -> Row | BadRow:
    """Return a row of which the loss counts a token; others the trainer drops without a word."""
    spoken = [at for at in _spoken_at(item.wholes[0], counter) if at >= prompt_tokens]
    if spoken and (cut.length is None or spoken[0] < cut.length):
        return item.row
    what = "the chat template marks nothing that the assistant says"
    if spoken:
        beyond = f"lies beyond max_length={cut.length}"
        what = f"the assistant's first word is token {spoken[0]}, which {beyond}"
    return BadRow((Problem(item.row.where, what),))


def _is_unspoken(item: _Texts, counter: TokenCounter, cut: CutPlan) -> bool:
    if "messages" not in item.row.columns or cut.length is None or cut.keeps_end:
        return False
    spoken = _spoken_at(item.wholes[0], counter) or _answered_at(item, counter)
    return bool(spoken) and spoken[0] >= cut.length


def _answered_at(item: _Texts, counter: TokenCounter) -> list[int]:
    """Return the token at which the first answer begins, by a template that does not mark it.

    It is not known where the template renders what comes before as no beginning of the whole.
    """
    turns, tools = item.row.columns["messages"], item.row.columns.get("tools")
    before = list(takewhile(lambda turn: turn["role"] != "assistant", turns))
    if counter.template is None or not before:
        return []
    try:
        asked = counter.template.render(before, tools=tools, add_generation_prompt=True).text
    except TemplateRefused:
        return []
    whole = item.wholes[0].text
    return counter.tokens_at(whole, [len(asked)]) if whole.startswith(asked) else []


def _is_alike(wholes: Sequence[Any], cut: CutPlan, length: int) -> bool:
    kept = slice(-length, None) if cut.keeps_end else slice(length)
    return len(wholes) > 1 and wholes[0].ids[kept] == wholes[1].ids[kept]


def _spoken_at(whole: Rendered, counter: TokenCounter) -> list[int]:
    """Return the first token of everything that the template marks as the assistant's."""
    return counter.tokens_at(whole.text, (start for start, end in whole.spans if end > start))
