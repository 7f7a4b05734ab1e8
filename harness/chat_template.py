"""A chat template, rendered as transformers' `apply_chat_template` renders it, without it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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

        template, spans_of = _compiled(self.text)
        if isinstance(tools, str):
            tools = json.loads(tools)
        try:
            with spans_of() as (blocks, spans):
                for block in template.generate(
                    messages=messages,
                    tools=tools or None,
                    documents=None,
                    add_generation_prompt=add_generation_prompt,
                    **self.tokens,
                ):
                    blocks.append(block)
        # Templates compute: beside Jinja's own errors they raise whatever Python raises.
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise TemplateRefused(str(error) or type(error).__name__) from error
        return Rendered("".join(blocks), tuple(spans))


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
    folders = (spec and spec.submodule_search_locations) or ["."]
    return Path(next(iter(folders))) / "chat_templates"


@cache
def _compiled(text: str) -> tuple[Any, Any]:
    """Return the template, and a context in which its marks are noted; raise TemplateRefused."""
    from jinja2 import TemplateSyntaxError, nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    blocks: list[str] = []
    spans: list[tuple[int, int]] = []

    class Generation(Extension):
        """Notes the span of `{% generation %}...{% endgeneration %}`."""

        tags = {"generation"}  # noqa: RUF012 - as the base class has it

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_noted"), [], [], body).set_lineno(line)

        def _noted(self, caller: Any) -> str:
            said: str = caller()
            start = sum(map(len, blocks))
            spans.append((start, start + len(said)))
            return said

    @contextmanager
    def noting() -> Iterator[tuple[list[str], list[tuple[int, int]]]]:
        blocks.clear()
        spans.clear()
        yield blocks, spans

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)  # noqa: DTZ005 - as transformers does
    try:
        return environment.from_string(text), noting
    except TemplateSyntaxError as error:
        raise TemplateRefused(f"line {error.lineno}: {error.message}") from error


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:  # noqa: FBT001, FBT002 - a filter's argument
    # Jinja's own filter escapes what HTML would misread.
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)
