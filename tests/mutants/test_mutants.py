"""A few mutants by name: each is a script that the gates refuse, and unchanged it is cleared."""

import ast

import pytest

from podproof.harness.embedded import embedded
from tests.mutants.judge import EXPLAINED, all_mutants, judge, killer_of, scripts
from tests.mutants.operators import mutants_of

# One of each module, and the gate that refuses it.
KILLED = {
    "readings.usable_loss [left out] number = float(value) -> pass": "scorer",
    "scores.ScoreState [constant] 1 -> 0": "scorer",
    "scorer.trainer_metric [condition] -score.value -> score.value": "dryrun",
    "trend.describe_trend [left out] return TrendWord.FLAT -> return None": "scorer",
    "stopping.stop_reason [left out] return StopReason.PLATEAU -> return None": "scorer",
    "hooks.isolated.guarded [left out] cost.count += 1 -> pass": "dryrun",
    "callback.PodCallback.on_step_end [left out] control.should_save = True -> pass": "dryrun",
}


@pytest.mark.parametrize("name", KILLED)
def test_a_mutant_is_refused_by_the_gate_that_looks_there(name: str) -> None:
    mutant = next(mutant for mutant in all_mutants() if mutant.name == name)

    judged = judge(mutant)

    assert judged.killed_by is not None
    assert judged.killed_by.startswith(KILLED[name])


def test_a_script_without_a_mutant_is_refused_by_nothing() -> None:
    assert killer_of(None) is None


def test_every_mutant_has_a_name_of_its_own() -> None:
    names = [mutant.name for mutant in all_mutants()]

    assert len(names) == len(set(names)) > 500


def test_every_explained_survivor_is_a_mutant() -> None:
    assert EXPLAINED.keys() <= {mutant.name for mutant in all_mutants()}


def test_the_text_of_a_mutant_is_the_script_with_one_module_changed() -> None:
    (script, *_), mutant = scripts(), all_mutants()[0]

    text = script.text_with(mutant)

    changed = ast.unparse(mutant.statement).splitlines()[-1]
    assert changed in text
    with embedded(text) as code, script.loaded(mutant) as loaded:
        assert set(vars(code)) == set(vars(loaded))


def test_the_operators_make_the_slips_that_they_are_for() -> None:
    source = 'def half(a, b):\n    """Say."""\n    return min(a, b) / 2 if not a < b else f(a, b)\n'

    made = mutants_of("m", ast.parse(source).body)

    slips = {f"{mutant.before} -> {mutant.after}" for mutant in made}
    assert {
        "a < b -> a <= b",
        "a < b -> a >= b",
        "min(a, b) -> max(a, b)",
        "min(a, b) / 2 -> min(a, b) * 2",
        "2 -> 3",
        "2 -> 1",
        "not a < b -> a < b",
        "f(a, b) -> f(b, a)",
    } <= slips
    assert not any("Say" in slip for slip in slips)
