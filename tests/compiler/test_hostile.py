"""Hostile text in any value: it arrives in the plan as it is, or is refused by its key.

It never becomes code: whatever the values, scripts differ in one string constant and a hash.
"""

import ast
import hashlib
import re
from typing import Any, get_type_hints

import pytest
from hypothesis import example, given, settings, strategies as st
from omegaconf import DictConfig

from podproof.compiler.errors import BadConfig
from podproof.compiler.ir import PodScript
from podproof.compiler.lower import lower
from podproof.compiler.read import config_from
from podproof.compiler.schema import SECTIONS, Config, SftMethod, plain
from podproof.compiler.script import compile_run
from podproof.runtime.plan import plan_from_json
from tests.compiler.conftest import composed_config, read_config, with_value, with_values

HOSTILE = (
    '"',
    "'",
    '""" + __import__(\'os\').system(\'id\') + """',
    "'; import os; '",
    "\\",
    '\\"',
    "two\nlines\r\nand\ttabs",
    "${name}",
    "${oc.env:HOME} \\${x} \\\\${y}",
    "$(touch /tmp/x) `id` $HOME; exit",
    "{{ RUNPOD_SECRET_x }} {% raw %}",
    "# /// script",
    "\N{SNOWMAN}\N{PILE OF POO}\u202e\u2028\x85",
    "nul \0 in between",
    "half \ud800 of a pair",
    "\x1b[31m\x0c\x7f",
    "-rf / --help",
    "EOF\n]]>",
)

# Every value that a person may write as free text; lists and mappings hold it at the marked place.
TEXT_KEYS = (
    "name",
    "model.name_or_path",
    "model.revision",
    "model.gguf_file",
    "model.dtype",
    "model.attn_implementation",
    "model.chat_template",
    "data.path",
    "data.name",
    "data.revision",
    "data.split",
    "adapter.bias",
    "scorer.file",
    "trainer.lr_scheduler_type",
    "trainer.optim",
    "method.packing_strategy",
    "method.loss_type",
    "report.url",
    "publish.dir",
    "publish.repo_id",
    "pod.image",
    "pod.network_volume",
)
LIST_KEYS = (
    "adapter.target_modules",
    "adapter.modules_to_save",
    "report.integrations",
    "pod.gpu",
    "pod.data_centers",
    "pod.cuda_versions",
)
MAPPING_KEYS = (
    "model.config",
    "data.columns",
    "trainer.fsdp_config",
    "trainer.deepspeed",
    "trainer.extra",
    "predictions.json_schema",
    "pod.env",
    "pod.secrets",
    "pod.requirements",
    "gates.skip",
)
# A rule wants exactly one of the three ways to evaluate, so these two stand alone.
EVAL_KEYS = ("data.eval.path", "data.eval.split")


TEXT_PLACES = dict.fromkeys(TEXT_KEYS, "text") | dict.fromkeys(LIST_KEYS, "item")

# Each key with how a text is put there; a mapping holds it as a value, as a key, or deep inside.
ROUNDS: dict[str, dict[str, str]] = {
    "values": TEXT_PLACES | dict.fromkeys(MAPPING_KEYS, "value"),
    "keys": dict.fromkeys(MAPPING_KEYS, "key"),
    "inner": dict.fromkeys(("model.config", "trainer.extra", "predictions.json_schema"), "inner"),
}


def filled(how: str, text: str) -> Any:
    """Return the value that holds the text as a round puts it there."""
    return {
        "text": text,
        "item": [text],
        "value": {"SOME_KEY": text},
        "key": {text: "1.0"},
        "inner": {"a": [{"b": text}]},
    }[how]


def escaped(value: Any) -> Any:
    """Return the value as it must be written, so that no `${` in it begins an interpolation."""
    match value:
        case str():
            return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", value)
        case list():
            return [escaped(item) for item in value]
        case dict():
            return {key: escaped(item) for key, item in value.items()}
        case _:
            return value


def refused_places(base: DictConfig, places: dict[str, str], text: str) -> set[str]:
    """Return the places whose keys the problems name once the text stands at all of them."""
    written = {key: escaped(filled(how, text)) for key, how in places.items()}
    try:
        config_from(with_values(base, written))
    except BadConfig as error:
        wheres = [problem.where for problem in error.problems]
        return {next((key for key in places if where.startswith(key)), where) for where in wheres}
    return set()


def accepted(base: DictConfig, places: dict[str, str], text: str) -> tuple[Config, dict[str, str]]:
    """Return the config with the text at each place that lets it in, and those places."""
    refused = refused_places(base, places, text)
    kept = {key: how for key, how in places.items() if key not in refused}
    written = {key: escaped(filled(how, text)) for key, how in kept.items()}
    return config_from(with_values(base, written)), kept


def changed_on_the_way(base: DictConfig, places: dict[str, str], text: str) -> dict[str, Any]:
    """Return what arrived at each place where it is not the text that was put there."""
    config, kept = accepted(base, places, text)
    arrived = {key: value_at(config, key) for key in kept}
    return {key: value for key, value in arrived.items() if value != filled(kept[key], text)}


def value_at(config: Config, key: str) -> Any:
    value: Any = plain(config)
    for part in key.split("."):
        value = value[part]
    return value


@pytest.fixture(scope="module")
def base() -> DictConfig:
    """Compose a sound config in which every section is in use, so that every rule looks at it."""
    return composed_config(
        "experiment=tiny_sft",
        "adapter=lora",
        "model.gguf_file=a",
        "report=http",
        "report.url=http://a",
    )


def taken_apart(script: PodScript) -> tuple[str, str]:
    """Return the plan the script holds in one string constant, and all of its text but that.

    The constant is found in the syntax tree, so a text that broke out of it would be left over.
    """
    (node,) = [
        node
        for node in ast.parse(script.text).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PLAN_JSON"
    ]
    assert isinstance(node.value, ast.Constant)
    lines = script.text.split("\n")
    before, after = lines[: node.lineno - 1], lines[node.end_lineno :]
    rest = "\n".join([*before, "PLAN_JSON = ...", *after])
    plan = str(node.value.value)
    for digest in (script.run.plan.config_sha256, hashlib.sha256(plan.encode()).hexdigest()):
        rest = rest.replace(digest, "its hash")
    return plan, rest


@pytest.fixture(scope="module")
def harmless(base: DictConfig) -> str:
    """Return all but the plan of the script that a harmless config is compiled to."""
    return taken_apart(compile_run(lower(config_from(base))))[1]


@pytest.mark.parametrize("places", ROUNDS.values(), ids=ROUNDS)
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_arrives_as_it_is_or_is_refused_by_its_key(
    base: DictConfig, places: dict[str, str], text: str
) -> None:
    assert refused_places(base, places, text) <= set(places)
    assert changed_on_the_way(base, places, text) == {}


@pytest.mark.parametrize("key", EVAL_KEYS)
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_names_a_file_or_a_split_to_evaluate_on(
    base: DictConfig, key: str, text: str
) -> None:
    hub = with_values(base, {"data.source": "hub", "data.eval.fraction": None})

    config = config_from(with_value(hub, key, escaped(text)))

    assert value_at(config, key) == text


@settings(max_examples=60)
@given(
    place=st.sampled_from(
        [{key: how} for places in ROUNDS.values() for key, how in places.items()]
    ),
    text=st.text(st.characters(), max_size=30),
)
@example(place={"data.path": "text"}, text="\\\\\\${")
@example(place={"data.path": "text"}, text="${}")
@example(place={"data.path": "text"}, text="???")
@example(place={"trainer.extra": "key"}, text="${oc.env:HOME}")
@example(place={"trainer.extra": "key"}, text="a.b")
def test_any_text_arrives_as_it_is_or_is_refused_by_its_key(
    base: DictConfig, place: dict[str, str], text: str
) -> None:
    assert refused_places(base, place, text) <= set(place)
    assert changed_on_the_way(base, place, text) == {}


def test_no_text_of_the_schema_is_left_out() -> None:
    sections = {**SECTIONS, "method": SftMethod}
    texts = {
        f"{name}.{key}"
        for name, section in sections.items()
        for key, hint in get_type_hints(section).items()
        if hint in {str, str | None, tuple[str, ...], dict[str, str], dict[str, Any]}
    }

    assert {*TEXT_KEYS, *LIST_KEYS, *MAPPING_KEYS} == texts | {"name"}


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_in_the_plan_changes_one_constant_and_nothing_else(
    base: DictConfig, harmless: str, text: str
) -> None:
    wanted = with_values(
        base, {"model.chat_template": escaped(text), "trainer.extra": {text: escaped(text)}}
    )
    run = lower(config_from(wanted))

    plan, rest = taken_apart(compile_run(run))

    assert run.plan.model.chat_template == text
    assert plan_from_json(plan) == run.plan
    assert rest == harmless


def test_all_of_it_at_every_place_that_lets_it_in_changes_nothing_else(
    base: DictConfig, harmless: str
) -> None:
    config, kept = accepted(base, ROUNDS["values"], "".join(HOSTILE))
    run = lower(config)

    plan, rest = taken_apart(compile_run(run))

    assert {"model.name_or_path", "data.path", "data.columns", "trainer.extra"} <= set(kept)
    assert plan_from_json(plan) == run.plan
    assert rest == harmless


# What a person can type on a command line: no NUL, and only what the terminal's bytes decode to.
TYPABLE = [text for text in HOSTILE if "\0" not in text]


@pytest.mark.parametrize("text", TYPABLE, ids=range(len(TYPABLE)))
def test_hostile_text_quoted_as_hydra_wants_it_arrives_from_the_command_line(text: str) -> None:
    # Hydra's rule: in quotes, a quote is escaped, and so is each backslash before a quote.
    quoted = re.sub(
        r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), escaped(text)
    )

    config = read_config(f"model.chat_template='{quoted}'")

    assert config.model.chat_template == text
