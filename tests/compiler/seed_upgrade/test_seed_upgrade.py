"""The upgrade podproof grew from: a callback that reports losses becomes one that scores.

Its owners analysed it by hand, before anybody wrote it. Each row of their table of breaking
changes, and each of their verdicts, must be in our report, with the same risk.
"""

from pathlib import Path

import pytest

from podproof.compiler.changes import Aspect, Change, Difference, Risk, Verb
from podproof.compiler.diff import diff
from podproof.compiler.sides import side_of_text

FOLDER = Path(__file__).parent
BEFORE = (FOLDER / "before.py").read_text(encoding="utf-8")
AFTER = (FOLDER / "after.py").read_text(encoding="utf-8")
CALLBACK = "TrainingMetricsCallback"
FIELDS = (
    "best_checkpoint_epoch, best_checkpoint_score, best_checkpoint_step, checkpoint_scores_history"
)


def difference(before: str = BEFORE, after: str = AFTER) -> Difference:
    return diff(side_of_text(before, "before.py"), side_of_text(after, "after.py"))


def found(report: Difference, verb: Verb, name: str) -> Change:
    """Return the one change of a name that begins so."""
    matching = [item for item in report.changes if item.verb is verb and item.name.startswith(name)]
    assert len(matching) == 1, [item.name for item in report.changes]
    return matching[0]


# The summary table: change, risk, what makes it safe, whether somebody must approve.
@pytest.mark.parametrize(
    ("verb", "name", "risk", "mitigation", "needs_approval"),
    [
        (Verb.ADDED, "calculate_checkpoint_score", Risk.MEDIUM, "size limits", True),
        (Verb.ADDED, f"{CALLBACK}._update_best_model", Risk.MEDIUM, "test it", True),
        (Verb.ADDED, f"{CALLBACK}.recent_losses", Risk.LOW, "memory is bounded", False),
        (Verb.CHANGED, f"{CALLBACK}.on_evaluate", Risk.MEDIUM, "integration tests", True),
        (
            Verb.ADDED,
            f"fields of training_jobs.metrics: {FIELDS}",
            Risk.LOW,
            "backwards compatible",
            False,
        ),
    ],
)
def test_every_row_of_the_summary_table_is_reported(
    verb: Verb, name: str, risk: Risk, mitigation: str, *, needs_approval: bool
) -> None:
    change = found(difference(), verb, name)

    assert (change.risk, change.needs_approval) == (risk, needs_approval)
    assert mitigation in change.mitigation


def test_the_new_variables_of_the_callback_are_internal() -> None:
    change = found(difference(), Verb.ADDED, f"{CALLBACK}: best_epoch, best_eval_loss, best_step")

    assert (change.risk, change.aspect) == (Risk.LOW, Aspect.STATE)


def test_on_log_only_adds_to_what_it_did() -> None:
    change = found(difference(), Verb.CHANGED, f"{CALLBACK}.on_log")

    assert (change.risk, change.needs_approval) == (Risk.LOW, False)
    assert "0 removed" in change.detail


def test_the_new_method_is_told_with_who_calls_it() -> None:
    report = difference()

    scorer = found(report, Verb.ADDED, "calculate_checkpoint_score")
    assert scorer.detail.endswith(f"called by {CALLBACK}._update_best_model")
    method = found(report, Verb.ADDED, f"{CALLBACK}._update_best_model")
    assert method.detail.endswith(f"called by {CALLBACK}.on_evaluate")


def test_training_arguments_selection_and_registration_do_not_change() -> None:
    aspects = {item.aspect for item in difference().changes}

    assert aspects.isdisjoint({Aspect.ARGUMENTS, Aspect.SELECTION, Aspect.API})
    assert "callbacks" not in " ".join(item.name for item in difference().changes)


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("environment", "no new package"),
        ("schema", "no migration"),
        ("API", "drop-in replacement"),
    ],
)
def test_environment_schema_and_api_are_kept(subject: str, words: str) -> None:
    verdict = next(item for item in difference().verdicts if item.subject == subject)

    assert verdict.is_kept
    assert words in verdict.what


def test_the_script_grows_by_about_two_hundred_lines() -> None:
    change = found(difference(), Verb.CHANGED, "script")

    assert "(+191)" in change.detail
    assert change.risk is Risk.LOW


def test_nothing_in_the_upgrade_is_critical_while_the_scorer_is_embedded() -> None:
    assert all(item.risk is not Risk.CRITICAL for item in difference().changes)


def test_a_scorer_that_is_imported_and_not_embedded_is_critical() -> None:
    # What the analysis feared most, and what happened thirteen days later.
    embedded, method = AFTER.split("def overfitting_gap", 1)
    _, rest = method.split("class TrainingMetricsCallback", 1)
    imported = f"{embedded}class TrainingMetricsCallback{rest}".replace(
        "        current_score = calculate",
        "        from lib.training.checkpoint_scorer import calculate_checkpoint_score\n\n"
        "        current_score = calculate",
    )

    report = difference(after=imported)

    change = found(report, Verb.ADDED, "import lib")
    assert (change.risk, change.needs_approval) == (Risk.CRITICAL, True)
    assert "embed the code" in change.mitigation
    environment = next(item for item in report.verdicts if item.subject == "environment")
    assert not environment.is_kept


def test_a_column_instead_of_a_json_field_needs_a_migration() -> None:
    column = AFTER.replace('job = {"metrics": best}', 'job = {"best_checkpoint_score": score}')

    report = difference(after=column)

    change = found(report, Verb.ADDED, "columns of training_jobs: best_checkpoint_score")
    assert change.risk is Risk.CRITICAL
    schema = next(item for item in report.verdicts if item.subject == "schema")
    assert not schema.is_kept


def test_the_way_back_names_the_same_things() -> None:
    there, back = difference(), difference(AFTER, BEFORE)

    turned = {Verb.ADDED: Verb.REMOVED, Verb.REMOVED: Verb.ADDED, Verb.CHANGED: Verb.CHANGED}
    assert {(item.aspect, item.name, item.verb) for item in there.changes} == {
        (item.aspect, item.name, turned[item.verb]) for item in back.changes
    }


def test_the_way_back_takes_fields_from_their_readers_and_is_critical() -> None:
    change = found(difference(AFTER, BEFORE), Verb.REMOVED, "fields of training_jobs.metrics")

    assert (change.risk, change.needs_approval) == (Risk.CRITICAL, True)
