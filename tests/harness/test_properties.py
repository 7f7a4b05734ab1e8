"""Each property of the scorer: the sound scorer keeps it, a scorer robbed of it is caught."""

import pytest

from podproof.compiler.ir import PodScript
from podproof.harness.embedded import embedded
from podproof.harness.properties import PROPERTIES, broken_properties
from podproof.runtime.plan import ScorerName, ScorerPlan
from tests.harness.conftest import Tamper

EXAMPLES = 60


def broken(script: PodScript, plan: ScorerPlan) -> set[str]:
    with embedded(script.text) as code:
        problems = broken_properties(code, plan, EXAMPLES)
    return {problem.where.removeprefix("scorer.") for problem in problems}


@pytest.mark.parametrize("name", [ScorerName.ROBUST, ScorerName.EVAL_LOSS])
def test_a_sound_scorer_keeps_every_property(sound: PodScript, name: ScorerName) -> None:
    assert broken(sound, ScorerPlan(name=name)) == set()


def test_other_weights_of_robust_keep_every_property(sound: PodScript) -> None:
    plan = ScorerPlan(gap_weight=0.3, gap_limit=1.0, train_ema_alpha=0.9)

    assert broken(sound, plan) == set()


def test_the_original_formula_breaks_the_properties_it_is_known_to_break(sound: PodScript) -> None:
    found = broken(sound, ScorerPlan(name=ScorerName.SEED_V1))

    assert {"total", "monotone", "one_sided", "bounded", "neutral"} <= found


TAMPERED = {
    "total": (
        "return number if math.isfinite(number) else None",
        "return number",
    ),
    "monotone": (
        'return {"eval_loss": loss, "gap": plan.gap_weight * gap}',
        'return {"eval_loss": loss, "gap": -1.5 * plan.gap_weight * gap / 0.02}',
    ),
    "one_sided": (
        "gap = min(max(loss - state.train_ema, 0.0), plan.gap_limit * state.scale)",
        "gap = min(abs(loss - state.train_ema), plan.gap_limit * state.scale)",
    ),
    "bounded": (
        "gap = min(max(loss - state.train_ema, 0.0), plan.gap_limit * state.scale)",
        "gap = max(loss - state.train_ema, 0.0)",
    ),
    "neutral": (
        'return {"eval_loss": loss, "gap": 0.0}',
        'return {"eval_loss": loss, "gap": plan.gap_weight}',
    ),
    "consistent": (
        "is_best = value < state.best_score\n",
        "is_best = value <= state.best_score\n",
    ),
    "pareto": (
        "is_best = value < state.best_score\n",
        "is_best = True\n",
    ),
    "causal": (
        '        if "train_loss" in entry:\n            continue\n',
        '        if "train_loss" in entry:\n            break\n',
    ),
}


@pytest.mark.parametrize("name", sorted(set(TAMPERED) - {"causal"}))
def test_a_scorer_robbed_of_a_property_is_caught(
    name: str, tamper: Tamper, sound: PodScript
) -> None:
    script = tamper(*TAMPERED[name])

    found = broken(script, sound.run.plan.scorer)

    assert name in found


def test_a_replay_that_differs_from_the_run_is_caught(tamper: Tamper, sound: PodScript) -> None:
    script = tamper(
        'state = observe_train_loss(state, entry["loss"], plan)\n        elif',
        "state = ScoreState()\n        elif",
    )

    assert "causal" in broken(script, sound.run.plan.scorer)


def test_the_smallest_counterexample_is_shown(tamper: Tamper, sound: PodScript) -> None:
    script = tamper(*TAMPERED["consistent"])

    with embedded(script.text) as code:
        problems = broken_properties(code, sound.run.plan.scorer, EXAMPLES)

    text = next(str(problem) for problem in problems if problem.where == "scorer.consistent")
    assert "a tie keeps the earlier one" in text
    assert "rounds=" in text


def test_the_verdict_is_the_same_every_time(tamper: Tamper, sound: PodScript) -> None:
    script = tamper(*TAMPERED["bounded"])

    with embedded(script.text) as code:
        first = broken_properties(code, sound.run.plan.scorer, EXAMPLES)
        second = broken_properties(code, sound.run.plan.scorer, EXAMPLES)

    assert first == second


def test_there_is_a_tampered_scorer_for_every_property() -> None:
    assert set(TAMPERED) == set(PROPERTIES)
