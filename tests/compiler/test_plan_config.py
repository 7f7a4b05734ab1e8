"""A plan asked as a config is: what no config could have said is named, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podproof.compiler.ir import PodScript
from podproof.compiler.lower import lower
from podproof.compiler.plan_config import config_of, own_requirements, plan_problems
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run, write_script
from podproof.compiler.script_file import read_script
from podproof.runtime.plan import plan_from_json, plan_to_json
from tests.faults.corpus import Case, cases, compiled_case

ON_A_VOLUME = ("pod.network_volume=abc",)
EXPERIMENTS = [
    ("experiment=tiny_sft",),
    ("experiment=tiny_dpo", "trainer.eval_strategy=epoch"),
    ("experiment=tiny_orpo", "trainer.eval_strategy=no"),
    ("experiment=smollm2_sft", "trainer.save_total_limit=null", "method.max_length=null"),
    ("experiment=llama3_8b_qlora_sft", *ON_A_VOLUME),
    ("experiment=qwen3_8b_full_sft", *ON_A_VOLUME),
    ("experiment=tiny_sft", "+trainer.extra.eval_on_start=true", "report.integrations=[wandb]"),
]

# Each fourth one here, all of them under make test-slow.
GOOD = [
    pytest.param(case, marks=[pytest.mark.slow] if place % 4 else [])
    for place, case in enumerate(cases("good"))
]


def compiled(*overrides: str) -> PodScript:
    return compile_run(lower(read(Request(overrides))))


def edited(script: PodScript, **arguments: Any) -> PodScript:
    plan = json.loads(plan_to_json(script.run.plan))
    plan["arguments"] |= arguments
    return replace(
        script, run=replace(script.run, plan=plan_from_json(json.dumps(plan))), knows_pod=False
    )


@pytest.fixture(scope="module")
def sound() -> PodScript:
    return compiled("experiment=tiny_sft")


@pytest.mark.parametrize("overrides", EXPERIMENTS, ids=" ".join)
def test_the_config_read_back_from_a_run_is_lowered_to_the_same_run(
    overrides: tuple[str, ...],
) -> None:
    run = lower(read(Request(overrides)))

    again = lower(config_of(run, []))

    plan = replace(again.plan, config_sha256=run.plan.config_sha256)
    assert replace(again, plan=plan) == run


@pytest.mark.parametrize("case", GOOD, ids=[case.name for case in cases("good")])
def test_no_good_script_is_refused_with_its_manifest_or_without(case: Case, tmp_path: Path) -> None:
    path, beside = write_script(compiled_case(case, tmp_path), tmp_path / "compiled")

    with_pod = plan_problems(read_script(path))
    beside.unlink()
    without = plan_problems(read_script(path))

    assert (with_pod, without) == ((), ())


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"metric_for_best_model": "eval_loss"}, "arguments.metric_for_best_model"),
        ({"save_strategy": "epoch"}, "arguments.save_strategy"),
        ({"seed": 7}, "arguments.seed"),
        ({"report_to": "wandb"}, "arguments.report_to"),
        ({"save_steps": 13}, "trainer.save_steps"),
        ({"learning_rate": "fast"}, "trainer.learning_rate"),
        ({"learning_rate": None}, "trainer.learning_rate"),
        ({"max_length": 1}, "method.max_length"),
        ({"output_dir": "/"}, "trainer.extra.output_dir"),
        ({"eval_delay": 1e9}, "trainer.extra.eval_delay"),
    ],
    ids=str,
)
def test_an_edited_argument_is_named_by_its_key(
    sound: PodScript, arguments: dict[str, Any], key: str
) -> None:
    problems = plan_problems(edited(sound, **arguments))

    assert [problem.where for problem in problems] == [key]


def test_what_an_argument_must_be_is_said(sound: PodScript) -> None:
    (problem,) = plan_problems(edited(sound, greater_is_better=False))

    assert "must be True" in problem.what
    assert "got False: the score would not choose the weights" in problem.what


def test_an_argument_without_evaluations_must_not_be_there() -> None:
    script = compiled("experiment=tiny_sft", "trainer.eval_strategy=no")

    (problem,) = plan_problems(edited(script, load_best_model_at_end=True))

    assert "must not be there" in problem.what


def test_what_only_some_pods_make_wrong_is_not_refused_without_a_pod(sound: PodScript) -> None:
    on_a_gpu = edited(compiled("experiment=qwen3_8b_dpo", *ON_A_VOLUME), use_cpu=True)

    assert plan_problems(edited(sound, use_cpu=True)) == ()
    assert plan_problems(on_a_gpu) == ()
    (problem,) = plan_problems(replace(on_a_gpu, knows_pod=True))
    assert problem.where == "trainer.extra.use_cpu"


def test_a_pin_that_is_gone_is_missed(sound: PodScript) -> None:
    requirements = tuple(item for item in sound.run.requirements if not item.startswith("trl"))
    script = replace(sound, run=replace(sound.run, requirements=requirements))

    (problem,) = plan_problems(script)

    assert problem.what.startswith("trl==")


def test_pins_that_are_not_ours_are_told(sound: PodScript) -> None:
    pins = (*(item for item in sound.run.requirements if "trl" not in item), "tlr==1.0", "trl==1.5")
    run = replace(sound.run, requirements=pins)

    assert own_requirements(run, config_of(run, [])) == ("tlr==1.0", "trl==1.5")
