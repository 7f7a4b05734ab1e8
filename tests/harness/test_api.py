"""The api gate: names the pinned libraries do not have are refused before a pod would meet them."""

import json
from importlib import resources
from pathlib import Path

import pytest

from podproof.compiler.pins import POD_PINS
from podproof.harness.api import (
    CONFIG_CLASSES,
    PACKAGES,
    api_answer,
    changed_defaults,
    class_table,
    tabled_versions,
)
from podproof.harness.verdict import Surroundings
from podproof.runtime.errors import Problem
from podproof.runtime.plan import MethodName
from tests.harness.conftest import Tamper, script_of

EXPERIMENTS = sorted(
    path.stem for path in (Path(__file__).parents[2] / "conf" / "experiment").glob("*.yaml")
)
PINNED = {package: POD_PINS[package] for package in PACKAGES}


def problems_of(*overrides: str) -> tuple[Problem, ...]:
    return api_answer(script_of(*overrides), Surroundings())[1]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_that_ships_passes(experiment: str) -> None:
    assert problems_of(f"experiment={experiment}", "pod.network_volume=abc") == ()


@pytest.mark.parametrize(
    ("method", "key", "way_out"),
    [
        ("sft", "evaluation_strategy", "it is eval_strategy now"),
        ("sft", "warmup_ratio", "it is warmup_steps now"),
        ("dpo", "max_prompt_length", "method.max_length"),
        ("dpo", "rpo_alpha", "method.loss_type"),
        ("orpo", "group_by_length", "train_sampling_strategy"),
        ("sft", "overwrite_output_dir", "take it out"),
        ("sft", "save_safetensors", "take it out"),
        ("sft", "no_cuda", "use_cpu"),
        ("sft", "dataloader_prefetch_facto", "did you mean dataloader_prefetch_factor?"),
        ("orpo", "precompute_ref_log_probs", "take it out, or pin a version that has it"),
    ],
)
def test_an_argument_the_class_does_not_take_is_refused(
    method: str, key: str, way_out: str
) -> None:
    (problem,) = problems_of(f"experiment=tiny_{method}", f"+trainer.extra.{key}=1")

    assert problem.where == f"trainer.extra.{key}"
    assert f"{CONFIG_CLASSES[MethodName(method)]} of trl {POD_PINS['trl']}" in problem.what
    assert way_out in problem.way_out


def test_all_of_them_are_named_at_once() -> None:
    found = problems_of(
        "experiment=tiny_sft", "+trainer.extra.no_cuda=true", "+trainer.extra.logging_dir=x"
    )

    assert [problem.where for problem in found] == [
        "trainer.extra.logging_dir",
        "trainer.extra.no_cuda",
    ]


def test_a_field_that_the_class_has_and_podproof_does_not_name_is_free() -> None:
    assert problems_of("experiment=tiny_sft", "+trainer.extra.dataloader_drop_last=true") == ()


def test_a_name_that_the_package_does_not_export_is_refused_with_its_line(tamper: Tamper) -> None:
    script = tamper(
        "from trl.experimental.orpo import ORPOConfig, ORPOTrainer",
        "from trl import ORPOConfig, ORPOTrainer",
    )

    _, problems = api_answer(script, Surroundings())

    assert [problem.what for problem in problems] == [
        f"trl {POD_PINS['trl']} exports no {name} from trl"
        for name in ("ORPOConfig", "ORPOTrainer")
    ]
    line = int(problems[0].where.removeprefix("pod_script.py:"))
    assert "from trl import ORPOConfig" in script.text.splitlines()[line - 1]


def test_a_module_that_no_table_has_is_refused(tamper: Tamper) -> None:
    script = tamper(
        "from trl.experimental.orpo import ORPOConfig, ORPOTrainer",
        "from trl.orpo import ORPOConfig, ORPOTrainer",
    )

    (problem,) = api_answer(script, Surroundings())[1]

    assert problem.what.startswith("imports from trl.orpo, which the table")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("processing_class=loaded", "tokenizer=loaded", "SFTTrainer of trl 1.16.0"),
        ("        lora_dropout=plan.lora", "        lora_drop=plan.lora", "LoraConfig of peft"),
    ],
)
def test_a_call_with_an_argument_that_is_gone_is_refused(
    tamper: Tamper, old: str, new: str, what: str
) -> None:
    (problem,) = api_answer(tamper(old, new), Surroundings())[1]

    assert problem.what.startswith(what)


@pytest.mark.parametrize(
    ("override", "where", "way_out"),
    [
        ("trainer.optim=adamw_torhc", "trainer.optim", "did you mean adamw_torch"),
        ("trainer.lr_scheduler_type=step", "trainer.lr_scheduler_type", "linear, cosine"),
        ("+pod.requirements.torch=2.1.0", "pod.requirements.torch", "pin one in that range"),
        ("+pod.requirements.tokenizers=0.20.0", "pod.requirements.tokenizers", "pin one"),
    ],
)
def test_a_value_or_a_pin_that_the_library_refuses_is_refused(
    override: str, where: str, way_out: str
) -> None:
    (problem,) = problems_of("experiment=tiny_sft", override)

    assert problem.where == where
    assert way_out in problem.way_out


def test_a_version_without_a_table_is_refused_by_its_pin() -> None:
    (problem,) = problems_of("experiment=tiny_sft", "+pod.requirements.trl=0.9.6")

    assert problem.where == "pod.requirements.trl"
    assert "pin one of 1.13.0, 1.14.2, 1.15.0, 1.16.0" in problem.way_out


@pytest.mark.parametrize("version", tabled_versions("trl"))
@pytest.mark.parametrize("method", ["sft", "dpo", "orpo"])
def test_each_tabled_trl_takes_what_the_tiny_experiments_give_it(version: str, method: str) -> None:
    overrides = (f"experiment=tiny_{method}", f"+pod.requirements.trl={version}")

    assert problems_of(*overrides) == ()


def test_there_are_tables_of_the_pinned_versions_and_of_three_trl_before() -> None:
    assert {package: POD_PINS[package] in tabled_versions(package) for package in PACKAGES} == (
        dict.fromkeys(PACKAGES, True)
    )
    assert len(tabled_versions("trl")) >= 4


def test_another_version_tells_which_defaults_are_other_ones() -> None:
    summary, _ = api_answer(
        script_of("experiment=tiny_sft", "+pod.requirements.trl=1.13.0"), Surroundings()
    )

    changed = changed_defaults("trl", "1.13.0")
    assert changed
    assert all(line in summary for line in changed)
    assert changed_defaults("trl", POD_PINS["trl"]) == ()


@pytest.mark.parametrize("method", list(MethodName))
def test_the_tables_say_what_the_installed_classes_say(method: MethodName) -> None:
    # The measured list of every field, made by importing the libraries, is kept beside the tables.
    measured = json.loads((Path(__file__).parent / "fields_of_trl_1_16.json").read_text())

    table = class_table(CONFIG_CLASSES[method], PINNED)

    assert table is not None
    assert sorted(table.arguments) == measured[CONFIG_CLASSES[method]]


def test_the_tables_are_whole_json_with_the_name_they_are_filed_under() -> None:
    for item in resources.files("podproof.harness").joinpath("api_tables").iterdir():
        table = json.loads(item.read_text(encoding="utf-8"))
        assert item.name == f"{table['package']}-{table['version']}.json"
