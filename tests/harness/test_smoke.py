"""The smoke gate: a sound script keeps its promises; one that breaks one of them is refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from podproof.compiler.ir import PodScript
from podproof.harness.gates import clear
from podproof.harness.smoke import smoke_answer
from podproof.harness.verdict import Outcome, Refused, Surroundings
from podproof.runtime.errors import Problem
from tests.harness.conftest import Tamper, script_of


def refusals(script: PodScript, surroundings: Surroundings) -> tuple[Problem, ...]:
    return smoke_answer(script, surroundings)[1]


@pytest.mark.parametrize(
    "overrides",
    [
        ("experiment=tiny_sft",),
        ("experiment=tiny_dpo", "scorer.objective=reward", "trainer.save_total_limit=null"),
        ("experiment=tiny_orpo", "adapter=lora", "predictions=text"),
    ],
    ids=["sft", "dpo by reward", "orpo with lora and predictions"],
)
def test_a_sound_script_trains_scores_chooses_and_delivers(
    overrides: tuple[str, ...], warm_at_hand: Surroundings
) -> None:
    summary, problems = smoke_answer(script_of(*overrides), warm_at_hand)

    assert problems == ()
    assert "8 steps, ended with step" in summary
    assert "loaded anew" in summary


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("experiment=smollm2_sft",),
        ("experiment=tiny_sft", "trainer.eval_strategy=epoch", "publish=none"),
        ("experiment=tiny_sft", "trainer.eval_strategy=no"),
        ("experiment=llama3_8b_qlora_sft", "pod.network_volume=a"),
        ("experiment=qwen3_8b_full_sft", "pod.network_volume=a"),
    ],
)
def test_whatever_a_config_asks_for_is_tried_as_far_as_one_cpu_can(
    overrides: tuple[str, ...], warm_at_hand: Surroundings
) -> None:
    assert refusals(script_of(*overrides), warm_at_hand) == ()


def test_a_delivery_of_another_checkpoint_than_the_best_is_refused(
    tamper: Tamper, warm_at_hand: Surroundings
) -> None:
    script = tamper(
        "key=lambda step: (step != facts.best_step, -usable[step], step)",
        "key=lambda step: -step",
    )

    problems = refusals(script, warm_at_hand)

    assert {problem.where for problem in problems} >= {"smoke.choice", "smoke.delivery"}
    assert "model.safetensors differs from that of checkpoint-2" in problems[-2].what


def test_a_delivery_that_is_right_by_chance_is_refused(
    tamper: Tamper, warm_at_hand: Surroundings
) -> None:
    script = tamper(
        "key=lambda step: (step != facts.best_step, -usable[step], step)",
        "key=lambda step: (step != 4, step)",
    )

    (problem,) = refusals(script, warm_at_hand)

    assert problem.what == "were step 8 the best, other weights would be delivered"


def test_a_delivery_that_does_not_load_by_itself_is_refused(
    tamper: Tamper, warm_at_hand: Surroundings
) -> None:
    script = tamper(
        "return not _NOT_DELIVERED.fullmatch(name)",
        'return not _NOT_DELIVERED.fullmatch(name) and name != "tokenizer.json"',
    )

    (problem,) = refusals(script, warm_at_hand)

    assert problem.where == "delivered"
    assert "does not load by itself" in problem.what


@pytest.mark.slow
def test_a_delivery_that_lost_its_chat_template_is_refused(
    tamper: Tamper, warm_at_hand: Surroundings
) -> None:
    script = tamper(
        "path.is_file() and is_delivered(path.name)",
        'path.is_file() and is_delivered(path.name) and path.name != "chat_template.jinja"',
    )

    (problem,) = refusals(script, warm_at_hand)

    assert problem.where == "model.chat_template"


def test_a_script_that_raises_says_where(tamper: Tamper, warm_at_hand: Surroundings) -> None:
    script = tamper(
        "    run.rank.leave()\n    if not", '    raise ValueError("no weights")\n    if not'
    )

    (problem,) = refusals(script, warm_at_hand)

    assert problem.what.startswith("ValueError: no weights")
    assert "_train_and_deliver" in problem.what


def test_data_that_the_script_refuses_are_told_in_its_own_words(
    tamper: Tamper, warm_at_hand: Surroundings
) -> None:
    script = tamper(
        "    _report_plan(plan, rows, reporter)\n",
        '    raise BadPlan(Problem("model.revision", "is not there", "name another"))\n',
    )

    (problem,) = refusals(script, warm_at_hand)

    assert (problem.where, problem.way_out) == ("model.revision", "name another")


def test_level_full_asks_both_gates_and_a_refused_trainer_is_not_trained(
    warm_at_hand: Surroundings,
) -> None:
    lora = ("experiment=tiny_sft", "adapter=lora", "adapter.target_modules=[c_attn]")
    skipped = [f"gates.skip.{gate}=not asked" for gate in ("api", "scorer", "dryrun")]

    refused = clear(script_of(*lora, "gates=full", *skipped), warm_at_hand)

    assert isinstance(refused, Refused)
    outcomes = {verdict.gate: verdict for verdict in refused.verdicts}
    assert outcomes["trainer"].outcome is Outcome.REFUSED
    assert outcomes["smoke"].summary == "not run: trainer refused already"


@pytest.mark.slow
def test_level_full_clears_a_sound_script_with_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "podproof", "verify", "experiment=tiny_sft", "gates=full"]
    cleared = subprocess.run(command, capture_output=True, text=True, check=False)

    assert cleared.returncode == 0, cleared.stdout
    assert "cleared for launch" in cleared.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_verification_that_is_ended_leaves_no_process(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "podproof", "verify", "experiment=tiny_sft", "gates=full"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    verifying = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while not list(tmp_path.rglob("pod_script.py")):
        time.sleep(0.05)

    verifying.send_signal(number)

    assert verifying.wait(timeout=60) == code
    end_s = time.monotonic() + 30
    while any(_names(path, str(tmp_path)) for path in Path("/proc").glob("[0-9]*")):
        assert time.monotonic() < end_s, "a process is still there"
        time.sleep(0.1)
    # Whoever is killed cannot clear away its folders.
    assert number == signal.SIGKILL or list(tmp_path.iterdir()) == []


def _names(process: Path, text: str) -> bool:
    try:
        return text.encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False
