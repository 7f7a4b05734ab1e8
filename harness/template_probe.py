"""Does a chat template of the config put into words what is said: a conversation, to try it on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from podproof.harness.budget import OverBudgetError, within
from podproof.harness.chat_template import ChatTemplate, TemplateRefused
from podproof.runtime.errors import Problem
from podproof.runtime.models import TOKENIZER_BOS, TOKENIZER_EOS
from podproof.runtime.plan import ModelPlan

_KEY = "model.chat_template"
# A probe takes a millisecond.
_PROBE_S = 5.0
_ASKED, _ANSWERED = "Whatdoeslendo", "Itcountstheitems"
_TOKENS = {"bos_token": TOKENIZER_BOS, "eos_token": TOKENIZER_EOS, "pad_token": TOKENIZER_EOS}
_WAY_OUT = (
    "each turn must print message['content']; null leaves the tokenizer's own template in place"
)


def template_problems(plan: ModelPlan) -> Iterator[Problem]:
    """Yield a problem when no probe comes out of the config's template with all that was said.

    A template may refuse some conversations, or want the contents in parts: one probe that comes
    out whole is enough, and where all are refused the rows themselves will tell.
    """
    if plan.chat_template is None:
        return
    if not plan.chat_template.strip():
        way_out = "set model.chat_template=null for the tokenizer's own"
        yield Problem(_KEY, "is empty, so that every row would be", way_out)
        return
    try:
        with within(_PROBE_S):
            texts = list(_rendered(ChatTemplate(plan.chat_template, _TOKENS)))
    except OverBudgetError:
        what = f"has not ended after {_PROBE_S:g} s, with a conversation of two turns"
        yield Problem(_KEY, what, "mend its loops; null leaves the tokenizer's own in place")
        return
    if not texts or any(not _left_out(text) for text in texts):
        return
    if "{" not in plan.chat_template:
        what = f"{plan.chat_template[:40]!r} is no template, but what every row would become"
        way_out = "write its Jinja text out; null leaves the tokenizer's own template in place"
        yield Problem(_KEY, what, way_out)
        return
    fewest = min((_left_out(text) for text in texts), key=len)
    yield Problem(_KEY, f"leaves out what {' and '.join(fewest)} said", _WAY_OUT)


def _rendered(template: ChatTemplate) -> Iterator[str]:
    for messages in _probes():
        try:
            yield template.render(messages).text
        except TemplateRefused:
            continue


def _probes() -> Iterator[Sequence[Mapping[str, Any]]]:
    turns = (("user", _ASKED), ("assistant", _ANSWERED))
    plain = [{"role": role, "content": content} for role, content in turns]
    parts = [
        {"role": role, "content": [{"type": "text", "text": content}]} for role, content in turns
    ]
    for messages in (plain, parts):
        yield messages
        yield [{"role": "system", "content": "Be brief."}, *messages]


def _left_out(text: str) -> tuple[str, ...]:
    said = {"the user": _ASKED, "the assistant": _ANSWERED}
    return tuple(who for who, content in said.items() if content not in text)
