"""The regression gate: a script is held against the approved one of its name."""

import json
from pathlib import Path

import pytest

from podproof.compiler.approvals import APPROVALS_NAME, Approval, write_approved
from podproof.compiler.ir import PodScript
from podproof.compiler.script import SCRIPT_NAME, manifest
from podproof.harness.gates import GATES
from podproof.harness.regression import regression_answer
from podproof.harness.verdict import Level, Surroundings
from tests.harness.conftest import script_of

SFT = "experiment=tiny_sft"


@pytest.fixture
def approved(tmp_path: Path, sound: PodScript) -> Surroundings:
    """Return surroundings in which the sound script is the approved one."""
    approval = Approval(sound.run.plan.name, sound.sha256, "Ada", "the baseline", 1.0)
    write_approved(sound.text, manifest(sound), approval, tmp_path)
    return Surroundings(approved=tmp_path)


def test_a_change_that_needs_an_approval_is_refused_with_its_way_out(
    approved: Surroundings,
) -> None:
    summary, problems = regression_answer(
        script_of(SFT, "trainer.learning_rate=1e-4", "trainer.logging_steps=3"), approved
    )

    assert [problem.where for problem in problems] == ["arguments.learning_rate"]
    assert problems[0].what == "MEDIUM: changed, 0.005 -> 0.0001"
    assert "podproof approve" in problems[0].way_out
    assert summary == "2 changes since the script approved by Ada, 1 needs an approval"


def test_a_scorer_that_chooses_otherwise_is_refused(approved: Surroundings) -> None:
    _, problems = regression_answer(script_of(SFT, "scorer=seed_v1"), approved)

    assert [problem.where for problem in problems] == ["choices of the scorer", "scorer.name"]
    assert problems[0].what.startswith("CRITICAL: changed, ")


def test_the_approved_script_itself_passes(approved: Surroundings, sound: PodScript) -> None:
    answer = regression_answer(sound, approved)

    assert answer == ("the script approved by Ada: the baseline", ())


def test_changes_that_need_no_approval_pass_and_are_counted(approved: Surroundings) -> None:
    answer = regression_answer(script_of(SFT, "trainer.logging_steps=3"), approved)

    assert answer == ("1 change since the script approved by Ada, 0 need an approval", ())


def test_a_script_of_another_name_is_not_held_against_it(approved: Surroundings) -> None:
    summary, problems = regression_answer(script_of(SFT, "name=other", "seed=3"), approved)

    assert problems == ()
    assert summary.startswith("no approved script of other to compare with; podproof approve")


def test_without_a_folder_of_approved_scripts_everything_passes(sound: PodScript) -> None:
    summary, problems = regression_answer(sound, Surroundings())

    assert problems == ()
    assert "podproof approve writes one" in summary


def test_an_approved_script_that_was_edited_is_refused(
    approved: Surroundings, sound: PodScript
) -> None:
    assert approved.approved is not None
    place = approved.approved / sound.run.plan.name
    (place / SCRIPT_NAME).write_text(sound.text.replace("0.005", "0.001"))

    _, problems = regression_answer(sound, approved)

    assert "which nobody approved last" in problems[0].what
    assert "restore the folder" in problems[0].way_out


@pytest.mark.parametrize("content", ["not JSON", "{}", "[]", '[{"name": "tiny-sft"}]', "[1]"])
def test_approvals_that_cannot_be_read_are_refused(
    approved: Surroundings, sound: PodScript, content: str
) -> None:
    assert approved.approved is not None
    (approved.approved / sound.run.plan.name / APPROVALS_NAME).write_text(content)

    _, problems = regression_answer(sound, approved)

    assert len(problems) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"when_unix_s": "yesterday"}, {"when_unix_s": 1e300}, {"who": 7}, {"changes": [None]}],
)
def test_approvals_with_a_value_of_the_wrong_kind_are_refused(
    approved: Surroundings, sound: PodScript, wrong: dict[str, object]
) -> None:
    assert approved.approved is not None
    place = approved.approved / sound.run.plan.name / APPROVALS_NAME
    (entry,) = json.loads(place.read_text())
    place.write_text(json.dumps([{**entry, **wrong}]))

    _, (problem,) = regression_answer(sound, approved)

    assert "is no list of approvals" in problem.what


def test_the_gate_stands_after_the_dry_run_and_runs_no_code_of_a_refused_text() -> None:
    gate = next(gate for gate in GATES if gate.gate_id == "regression")
    before = GATES[GATES.index(gate) - 1]

    assert (gate.level, gate.needs_sound_script, before.gate_id) == (Level.FAST, True, "dryrun")
