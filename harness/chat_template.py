"""A chat template, rendered as transformers' `apply_chat_template` renders it, without it."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class TemplateRefused(Exception):
    """A template could not be rendered for a conversation; says in whose words."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, and the spans of characters between `generation` marks."""

    text: str
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ChatTemplate:
    """Jinja text, and the tokenizer's special tokens, which a template may name."""

    text: str
    tokens: Mapping[str, str]

    @property
    def has_generation_marks(self) -> bool:
        """Tell whether it marks which part of a conversation the assistant says."""
        return _GENERATION.search(self.text) is not None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Any = None,
        add_generation_prompt: bool = False,
    ) -> Rendered:
        """Return the conversation as text; raise TemplateRefused when the template cannot."""
        from jinja2 import TemplateError

        template, noted = _compiled(self.text)
        noted.clear()
        try:
            for block in template.generate(
                messages=messages,
                tools=json.loads(tools) if isinstance(tools, str) else tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.tokens,
            ):
                noted.blocks.append(block)
        # Templates compute: beside Jinja's own errors they raise whatever Python raises.
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise TemplateRefused(str(error) or type(error).__name__) from error
        return Rendered("".join(noted.blocks), tuple(noted.spans))


def training_template(template: ChatTemplate) -> ChatTemplate | None:
    """Return the template TRL trains with in place of one without marks; None: it has none.

    TRL knows some models' templates by their text. Its own files are read, where it is installed.
    """
    for path in _trl_templates().glob("*_training.jinja"):
        original = path.with_name(path.name.replace("_training", ""))
        if original.is_file() and original.read_text(encoding="utf-8") == template.text:
            return ChatTemplate(path.read_text(encoding="utf-8"), template.tokens)
    return None


def knows_training_templates() -> bool:
    """Tell whether TRL is installed here, so that `training_template` can look."""
    return _trl_templates().is_dir()


@cache
def _trl_templates() -> Path:
    spec = find_spec("trl")
    folders = (spec and spec.submodule_search_locations) or [os.devnull]
    return Path(next(iter(folders))) / "chat_templates"


@dataclass
class _Noted:
    """What a rendering has made so far, and the spans between its marks."""

    blocks: list[str] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)

    def clear(self) -> None:
        self.blocks.clear()
        self.spans.clear()

    def add(self, said: str) -> None:
        start = sum(map(len, self.blocks))
        self.spans.append((start, start + len(said)))


@cache
def _compiled(text: str) -> tuple[Any, _Noted]:
    """Return the template, and what notes its marks; raise TemplateRefused."""
    from jinja2 import TemplateSyntaxError
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    noted = _Noted()
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_generation(noted), loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005 - as transformers does
    try:
        return environment.from_string(text), noted
    except TemplateSyntaxError as error:
        raise TemplateRefused(f"line {error.lineno}: {error.message}") from error


def _generation(noted: _Noted) -> Any:
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        """Notes the span of `{% generation %}...{% endgeneration %}`."""

        tags = {"generation"}  # noqa: RUF012 - as the base class has it

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_noted"), [], [], body).set_lineno(line)

        def _noted(self, caller: Any) -> str:
            said: str = caller()
            noted.add(said)
            return said

    return Generation


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:  # noqa: FBT001, FBT002 - a filter's argument
    # Jinja's own filter escapes what HTML would misread.
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)
