"""A chat template of the config: does what is said come out of it."""

from pathlib import Path

import pytest

from podproof.harness.data import data_answer
from podproof.harness.template_probe import template_problems
from podproof.runtime.errors import Problem
from podproof.runtime.models import DEFAULT_CHAT_TEMPLATE
from podproof.runtime.plan import ModelPlan
from tests.harness.conftest import AT_HAND, script_of


def problems(template: str | None) -> list[Problem]:
    return list(template_problems(ModelPlan(chat_template=template)))


def each(body: str) -> str:
    return "{% for message in messages %}" + body + "{% endfor %}"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (each("{{ message.role }}"), "the user and the assistant said"),
        (each("{{ message.text }}"), "the user and the assistant said"),
        ("{{ messages[-1].content }}", "leaves out what the user said"),
        (each("{% if message.role == 'user' %}{{ message.content }}{% endif %}"), "the assistant"),
        ("hello", "'hello' is no template"),
        ("chatml", "'chatml' is no template"),
        ("", "is empty"),
        (" ", "is empty"),
    ],
)
def test_a_template_that_leaves_out_what_is_said_is_refused(template: str, says: str) -> None:
    (problem,) = problems(template)

    assert problem.where == "model.chat_template"
    assert says in problem.what


@pytest.mark.parametrize(
    "template",
    [
        None,
        DEFAULT_CHAT_TEMPLATE,
        each("{{ message.content | trim }}{{ eos_token }}"),
        "{{ raise_exception('never') }}",
        "{% if messages[0].role != 'system' %}{{ raise_exception('who are you?') }}{% endif %}"
        + each("{{ message['content'] }}"),
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + each("{{ message['content'] }}"),
        each("{% for part in message.content %}{{ part.text }}{% endfor %}"),
        each("{% generation %}{{ message.content }}{% endgeneration %}"),
    ],
)
def test_a_template_that_says_it_for_some_conversation_passes(template: str | None) -> None:
    assert problems(template) == []


def test_a_template_that_never_ends_is_refused_and_no_row_is_tried_on_it() -> None:
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    script = script_of("experiment=tiny_sft", f"model.chat_template='{each(loop)}'")

    summary, (problem,), _ = data_answer(script, AT_HAND)

    assert "has not ended" in problem.what
    assert "rows were not looked at" in summary


def test_the_data_gate_asks_also_where_the_rows_are_on_the_hub() -> None:
    script = script_of(
        "experiment=qwen3_8b_dpo", "pod.network_volume=abc", "model.chat_template=chatml"
    )

    _, found, _ = data_answer(script, AT_HAND)

    assert [problem.where for problem in found] == ["model.chat_template"]


def test_a_gguf_file_that_an_installed_package_lacks_is_refused_by_the_data_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "llm_there"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "weights.gguf").touch()
    monkeypatch.syspath_prepend(tmp_path)
    script = script_of(
        "experiment=smollm2_sft",
        "model.name_or_path=package:llm_there",
        "model.gguf_file=nothere.gguf",
        "+pod.requirements.llm-there=1.0.0",
    )

    _, found, _ = data_answer(script, AT_HAND)

    assert [problem.where for problem in found] == ["model.gguf_file"]
    assert "weights.gguf" in found[0].way_out


def test_a_package_that_is_not_installed_here_may_hold_any_file() -> None:
    script = script_of(
        "experiment=smollm2_sft",
        "model.name_or_path=package:llm_nothere",
        "+pod.requirements.llm-nothere=1.0.0",
    )

    _, found, _ = data_answer(script, AT_HAND)

    assert found == ()
