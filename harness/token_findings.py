"""What the tokens of all rows say: problems, facts for the summary, and numbers."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from podproof.harness.chat_template import knows_training_templates, training_template
from podproof.harness.token_counts import (
    TRAIN,
    CutPlan,
    TokenTally,
    count_tokens,
    cut_plan,
    refused_rows,
    unspoken_rows,
)
from podproof.harness.token_lengths import token_lengths
from podproof.harness.tokenizer import TokenCounter
from podproof.runtime.errors import Problem
from podproof.runtime.plan import Plan
from podproof.runtime.rows import Row, is_conversation

# A larger share of rows that are cut gets a notice of its own.
_MOST_CUT = 0.5


@dataclass(frozen=True)
class Findings:
    """What one question to the rows found: problems, sentences for the summary, JSON values."""

    problems: tuple[Problem, ...] = ()
    facts: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def uncounted(why: str) -> Findings:
    """Say why no token was counted: what is not known is no reason to refuse."""
    fact = f"tokens were not counted: {why}"
    return Findings((), (fact,), {"tokens": {"not_counted": why}})


def find_in_tokens(
    plan: Plan, first: Row, counter: TokenCounter, rows: Iterable[tuple[str, Row]]
) -> Findings:
    """Count the tokens of all rows, each given with its part; `first` tells their shape."""
    cut = cut_plan(plan)
    unfit = _template_problem(counter, cut, first)
    if unfit is not None:
        return Findings((unfit,), (), {})
    left = _left_to_the_pod(counter, cut)
    cut = replace(cut, is_assistant_only=cut.is_assistant_only and not left)
    counted = count_tokens(rows, _as_trained(counter, cut), cut)
    problems: list[Problem] = []
    facts: list[str] = [*left]
    details: dict[str, Any] = {}
    for part in sorted(counted, reverse=True):
        too_many, dropped = counted[part].room.judged(plan.data.max_bad_fraction)
        problems += [*refused_rows(counted[part]), *too_many]
        problems += unspoken_rows(part, counted[part], cut)
        facts += [*dropped, *_facts(part, counted[part], cut)]
        details[part] = _details(counted[part], cut)
    return Findings(tuple(problems), tuple(facts), {"tokens": details})


def _left_to_the_pod(counter: TokenCounter, cut: CutPlan) -> tuple[str, ...]:
    """Say that nobody here knows which tokens are learnt, where TRL would put another template."""
    template = counter.template
    is_marked = template is not None and template.has_generation_marks
    if not cut.is_assistant_only or is_marked or knows_training_templates():
        return ()
    return ("what the assistant says is marked on the pod: TRL is not installed here",)


def _template_problem(counter: TokenCounter, cut: CutPlan, first: Row) -> Problem | None:
    """Say why these rows have no template that the trainer could use, if so."""
    if not is_conversation(first):
        if not cut.is_assistant_only:
            return None
        what = "needs conversations, to know what the assistant says"
        way_out = "set it to false, or train on messages"
        return Problem("method.assistant_only_loss", what, way_out)
    if counter.template is None:
        what = "the rows are conversations, and the tokenizer has no chat template"
        return Problem("model.chat_template", what, "set it to the model's own template")
    trained = _as_trained(counter, cut).template
    is_marked = trained is not None and trained.has_generation_marks
    # Where TRL is not installed nobody can say here which templates it replaces by marked ones.
    if is_marked or not cut.is_assistant_only or not knows_training_templates():
        return None
    what = "the chat template does not mark what the assistant says, and TRL knows no other"
    way_out = "put {% generation %}...{% endgeneration %} around it in model.chat_template"
    return Problem("method.assistant_only_loss", what, way_out)


def _as_trained(counter: TokenCounter, cut: CutPlan) -> TokenCounter:
    """Return the counter with the template that TRL puts in place of one without marks."""
    template = counter.template
    if template is None or not cut.is_assistant_only or template.has_generation_marks:
        return counter
    return replace(counter, template=training_template(template) or template)


def _details(tally: TokenTally, cut: CutPlan) -> Mapping[str, Any]:
    lengths = token_lengths(tally.lengths, cut.length)
    counts = {"unspoken": tally.unspoken, "alike": tally.alike, "no_room": tally.room.bad}
    return {**(lengths.to_dict() if lengths else {}), **counts, "max_length": cut.length}


def _facts(part: str, tally: TokenTally, cut: CutPlan) -> Iterator[str]:
    lengths = token_lengths(tally.lengths, cut.length)
    if lengths is None:
        return
    if part == TRAIN:
        yield f"tokens a row {lengths.line()}"
    if lengths.longer_than_max:
        cut_rows = f"{lengths.longer_than_max:,} of {lengths.rows:,} {part} rows"
        yield f"{cut_rows} are cut at max_length {cut.length}"
    if part == TRAIN and lengths.longer_than_max > _MOST_CUT * lengths.rows:
        yield from _mostly_cut(tally, cut)
    if tally.unspoken:
        yield f"{tally.unspoken:,} {part} rows are cut before the assistant says a word"
    if tally.alike:
        yield f"{tally.alike:,} {part} pairs are cut to the same tokens"


def _mostly_cut(tally: TokenTally, cut: CutPlan) -> Iterator[str]:
    """Say what share of the tokens goes, and that the ends of the rows go with them."""
    if cut.length is None or cut.keeps_end:
        return
    there = sum(length * rows for length, rows in tally.lengths.items())
    kept = sum(min(length, cut.length) * rows for length, rows in tally.lengths.items())
    share = f"{100 * (1 - kept / there):.0f} % of all train tokens"
    yield f"that cuts away {share}, and the ends of most rows, by which a model learns to stop"
