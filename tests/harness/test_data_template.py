"""Chat templates are rendered as transformers renders them."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from podproof.harness.chat_template import ChatTemplate, TemplateRefused, training_template
from podproof.runtime.models import DEFAULT_CHAT_TEMPLATE

TURNS = [
    {"role": "user", "content": "What does len do?"},
    {"role": "assistant", "content": "It counts."},
]
LONGER = [{"role": "system", "content": "Be brief."}, *TURNS, *TURNS]
CALL = {"type": "function", "function": {"name": "now", "arguments": {"zone": "<UTC>"}}}
CALLING = [
    TURNS[0],
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "now", "content": "nine"},
    TURNS[1],
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "Tells the time.",
            "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}},
        },
    }
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


def shipped_templates() -> list[Path]:
    """Return the templates that TRL knows: those of most models that are fine-tuned."""
    spec = find_spec("trl")
    folders = (spec and spec.submodule_search_locations) or []
    return sorted(
        path for folder in folders for path in Path(folder).glob("chat_templates/*.jinja")
    )


def theirs(text: str, turns: Sequence[Any], tools: Any, *, prompt: bool) -> tuple[str, Any]:
    """Return what transformers renders, or the kind of its refusal."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        (rendered,), (spans,) = render_jinja_template(
            [list(turns)],
            tools=tools,
            chat_template=text,
            add_generation_prompt=prompt,
            return_assistant_tokens_mask=True,
            **TOKENS,
        )
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError):
        return "refused", ()
    return rendered, tuple(spans)


def ours(text: str, turns: Sequence[Any], tools: Any, *, prompt: bool) -> tuple[str, Any]:
    try:
        rendered = ChatTemplate(text, TOKENS).render(
            turns, tools=tools, add_generation_prompt=prompt
        )
    except TemplateRefused:
        return "refused", ()
    return rendered.text, rendered.spans


@pytest.mark.parametrize("path", shipped_templates(), ids=lambda path: path.stem)
def test_a_template_of_a_known_model_is_rendered_as_transformers_does(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    questions = [
        (turns, tools, prompt)
        for turns in (TURNS, LONGER, CALLING, TURNS[:1])
        for tools in (None, TOOLS)
        for prompt in (False, True)
    ]

    for turns, tools, prompt in questions:
        assert ours(text, turns, tools, prompt=prompt) == theirs(text, turns, tools, prompt=prompt)


def test_the_default_template_marks_what_the_assistant_says_with_its_end() -> None:
    rendered = ChatTemplate(DEFAULT_CHAT_TEMPLATE, {}).render(TURNS)

    assert [rendered.text[start:end] for start, end in rendered.spans] == ["It counts.<|im_end|>"]


def test_the_default_template_writes_calls_of_tools_where_nothing_is_said() -> None:
    silent: list[dict[str, Any]] = [
        TURNS[0],
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ]

    rendered = ChatTemplate(DEFAULT_CHAT_TEMPLATE, {}).render(silent)

    ((start, end),) = rendered.spans
    assert rendered.text[start:end].startswith('[{"type": "function"')
    assert rendered.text[start:end].endswith("<|im_end|>")


def test_a_second_rendering_forgets_the_spans_of_the_first() -> None:
    template = ChatTemplate(DEFAULT_CHAT_TEMPLATE, {})

    first = template.render(LONGER)
    second = template.render(TURNS)

    assert (len(first.spans), len(second.spans)) == (2, 1)


def test_tools_may_be_json() -> None:
    rendered = ChatTemplate("{{ tools[0].name }}", {}).render(TURNS, tools='[{"name": "now"}]')

    assert rendered.text == "now"


@pytest.mark.parametrize(
    "text",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[9].content }}",
        "{{ messages[0].content + 1 }}",
        "{% for message in messages %}",
    ],
)
def test_a_template_that_cannot_render_says_so(text: str) -> None:
    with pytest.raises(TemplateRefused):
        ChatTemplate(text, {}).render(TURNS)


def test_a_template_cannot_reach_beyond_its_sandbox() -> None:
    with pytest.raises(TemplateRefused):
        ChatTemplate("{{ messages.__class__.__mro__ }}", {}).render(TURNS)


def test_trl_has_a_marked_template_for_some_and_none_for_others() -> None:
    pytest.importorskip("trl")
    known = next(path for path in shipped_templates() if path.stem == "llama3")

    found = training_template(ChatTemplate(known.read_text(encoding="utf-8"), {}))

    assert found is not None
    assert found.has_generation_marks
    assert training_template(ChatTemplate("{{ messages }}", {})) is None
