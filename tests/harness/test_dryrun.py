"""The dry run: a sound callback survives every scenario; a broken one is named with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from podproof.compiler.ir import PodScript
from podproof.harness.dryrun import failed_dry_runs, scenarios
from podproof.harness.embedded import embedded
from podproof.runtime.errors import Problem
from podproof.runtime.plan import MethodName
from tests.harness.conftest import ROOTS, Tamper, script_of


def dry_run(script: PodScript) -> tuple[Problem, ...]:
    with embedded(script.text) as code:
        return failed_dry_runs(code, script.run.plan)


@pytest.mark.parametrize("method", ["sft", "dpo", "orpo"])
def test_a_sound_callback_survives_every_scenario(method: str) -> None:
    assert dry_run(script_of(f"experiment=tiny_{method}")) == ()


@pytest.mark.parametrize(
    "overrides",
    [
        ("scorer.early_stopping.patience=1",),
        ("scorer.trend.stop_on_divergence=2",),
        ("scorer.trend.stop_on_plateau=1",),
        ("scorer.objective=accuracy", "scorer.redrawn_eval=true"),
        ("scorer.objective=reward", "trainer.save_total_limit=null"),
    ],
)
def test_whatever_a_plan_asks_of_its_scorer_survives_every_scenario(
    overrides: tuple[str, ...],
) -> None:
    assert dry_run(script_of("experiment=tiny_dpo", *overrides)) == ()


def test_a_formula_of_the_users_for_the_reward_survives_every_scenario(tmp_path: Path) -> None:
    formula = tmp_path / "margins.py"
    formula.write_text(
        "def own_components(state, evaluation, plan):\n"
        "    margin = evaluation.margin or 0.0\n"
        "    share = 0.01 * evaluation.scale * margin / (1.0 + abs(margin))\n"
        "    return {'eval_loss': evaluation.loss, 'margin': -share}\n\n\n"
        "def own_bound(plan):\n"
        "    return -0.01, 0.01\n"
    )
    own = ("scorer=own", f"scorer.file={formula}", "trainer.save_total_limit=null")

    script = script_of("experiment=tiny_dpo", *own, "scorer.objective=reward")

    assert dry_run(script) == ()


def test_the_gates_need_no_training_library() -> None:
    # In a process of its own: other tests of this session import what they like.
    program = (
        "import sys; from tests.harness.conftest import AT_HAND, ROOTS, script_of; "
        "from podproof.harness.gates import clear; "
        "clear(script_of('experiment=tiny_sft'), AT_HAND); "
        "print(sorted({'torch', 'transformers', 'trl', 'runpod'} & set(sys.modules)))"
    )

    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOTS[0])

    assert done.stdout.strip() == "[]"


def test_a_missing_score_key_kills_the_simulated_trainer_as_it_would_the_real_one(
    tamper: Tamper,
) -> None:
    script = tamper(
        "            metrics.setdefault(SCORE_KEY, self._metric_at(state.global_step))\n",
        "            metrics.pop(SCORE_KEY, None)\n",
    )

    problems = dry_run(script)

    assert "dryrun.a callback that takes the score away" in {problem.where for problem in problems}
    assert "KeyError" in problems[0].what


def test_a_hook_that_fails_is_reported_with_its_name(tamper: Tamper) -> None:
    script = tamper(
        "        if not logs:\n            return\n",
        "        logs = dict(logs, loss=logs['loss'] + 1)\n",
    )

    problems = dry_run(script)

    assert any("on_log raised KeyError" in problem.what for problem in problems)


def test_a_score_in_the_wrong_direction_is_caught(tamper: Tamper) -> None:
    script = tamper(
        "return -score.value if math.isfinite(score.value) else math.nan",
        "return score.value if math.isfinite(score.value) else math.nan",
    )

    problems = dry_run(script)

    assert any("the trainer would load step" in problem.what for problem in problems)


def test_a_callback_that_forgets_its_history_on_a_restart_is_caught(tamper: Tamper) -> None:
    script = tamper(
        "for entry in state.log_history:\n            self._fold_kept",
        "for entry in ():\n            self._fold_kept",
    )

    assert dry_run(script) != ()


def test_a_callback_that_remembers_an_attempt_that_was_given_up_is_caught(tamper: Tamper) -> None:
    script = tamper("        self._forget()\n        for entry", "        for entry")

    problems = dry_run(script)

    assert any("begun again from nothing" in problem.what for problem in problems)


def test_a_second_eval_set_that_hides_the_score_of_the_first_is_caught(tamper: Tamper) -> None:
    shown = "logs[SCORE_KEY] = self._metric_at(state.global_step)"
    script = tamper(shown, f'{shown} if "eval_far_loss" not in logs else math.nan')

    assert {problem.where for problem in dry_run(script)} == {"dryrun.two eval sets"}


def test_a_score_that_hangs_on_the_rank_is_caught(tamper: Tamper) -> None:
    shown = "logs[SCORE_KEY] = self._metric_at(state.global_step)"
    script = tamper(shown, f'{shown} - logs.get("eval_runtime", 0.0)')

    problems = dry_run(script)

    assert any("on another rank" in problem.what for problem in problems)


def test_a_save_that_is_not_reported_is_caught(tamper: Tamper) -> None:
    script = tamper(
        'self._send(state, EventKind.CHECKPOINT_SAVED, {"path": path})', "_ = path, state"
    )

    problems = dry_run(script)

    assert any("reported []" in problem.what for problem in problems)


def test_scenarios_have_names_of_their_own() -> None:
    names = [scenario.name for scenario in scenarios(MethodName.DPO)]

    assert len(names) == len(set(names))
