"""The diff of two scripts of ours: each kind of change is named, with its risk; else nothing is."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from podproof.compiler.changes import Aspect, Change, Difference, Risk, Verb
from podproof.compiler.diff import diff
from podproof.compiler.errors import BadScript
from podproof.compiler.lower import lower
from podproof.compiler.schema import EvalStrategy, GatesLevel
from podproof.compiler.script import compile_run, manifest, write_script
from podproof.compiler.semantic import Expected, Known
from podproof.compiler.sides import Side, side_of, side_of_text
from podproof.runtime.plan import AdapterKind, ModelInit, ScorerName, Sink, plan_to_json
from tests.compiler.conftest import changed, read_config

SFT = "experiment=tiny_sft"
Edited = Callable[[str, str], Side]
TURNED = {Verb.ADDED: Verb.REMOVED, Verb.REMOVED: Verb.ADDED, Verb.CHANGED: Verb.CHANGED}


BASE = read_config(SFT)
SCRIPT = compile_run(lower(BASE))
PLAIN = side_of(SCRIPT, "a side")


def side(values: Mapping[str, object]) -> Side:
    """Return the plain side with another config; its text stays, and is not compiled again."""
    run = lower(changed(BASE, values))
    beside, plan = manifest(replace(SCRIPT, run=run)), json.loads(plan_to_json(run.plan))
    return replace(
        PLAIN,
        plan=plan,
        requirements=run.requirements,
        pod=beside["pod"],
        gates=beside["gates"],
    )


@pytest.fixture(scope="module")
def plain() -> Side:
    return PLAIN


@pytest.fixture(scope="module")
def edited(plain: Side) -> Edited:
    """Return the plain script with a piece of its program replaced."""

    def replaced(old: str, new: str) -> Side:
        assert plain.text.count(old) == 1, f"{old!r} stands {plain.text.count(old)} times"
        beside = {"pod": plain.pod, "gates": plain.gates}
        return side_of_text(plain.text.replace(old, new), "edited", beside)

    return replaced


def names(difference: Difference) -> set[tuple[Aspect, str, Verb]]:
    return {(item.aspect, item.name, item.verb) for item in difference.changes}


def only(difference: Difference, name: str) -> Change:
    found = [item for item in difference.changes if item.name == name]
    assert len(found) == 1, names(difference)
    return found[0]


# No change.


def test_a_script_and_itself_have_no_difference(plain: Side) -> None:
    difference = diff(plain, plain)

    assert (difference.changes, difference.quantities) == ((), ())
    assert all(verdict.is_kept for verdict in difference.verdicts)


def test_the_order_of_keys_in_yaml_makes_no_change(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    lines = ["seed: 3", "name: mine", "trainer: {learning_rate: 1e-4, num_train_epochs: 2}"]
    turned = [*reversed(lines[:2]), "trainer: {num_train_epochs: 2, learning_rate: 1e-4}"]
    for name, body in (("one", lines), ("other", turned)):
        text = "\n".join(["# @package _global_", *body]) + "\n"
        (tmp_path / "experiment" / f"{name}.yaml").write_text(text)

    one, other = (
        side_of(compile_run(lower(read_config(f"experiment={name}", config_dir=tmp_path))), name)
        for name in ("one", "other")
    )

    assert diff(one, other).changes == ()


def test_a_script_read_from_its_folder_is_the_one_that_was_compiled(tmp_path: Path) -> None:
    script = compile_run(lower(changed(BASE, {"pod.env": {"A": "b"}})))
    path, beside = write_script(script, tmp_path)
    read_back = side_of_text(path.read_text(), "a side", json.loads(beside.read_text()))

    assert diff(side_of(script, "a side"), read_back).changes == ()


def test_another_docstring_is_no_change(edited: Edited, plain: Side) -> None:
    here = edited(
        '"""Return the state after one logged train loss; an unusable one changes nothing."""',
        '"""Return what is known after a train loss."""',
    )

    assert diff(plain, here).changes == ()


# Changes of a config.


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("trainer.learning_rate", 1e-4, ("arguments.learning_rate", "MEDIUM", "arguments")),
        ("trainer.logging_steps", 3, ("arguments.logging_steps", "LOW", "arguments")),
        ("scorer.gap_weight", 0.1, ("scorer.gap_weight", "MEDIUM", "scorer")),
        ("scorer.name", ScorerName.EVAL_LOSS, ("scorer.name", "MEDIUM", "scorer")),
        ("data.eval.fraction", 0.3, ("data.eval.fraction", "CRITICAL", "config")),
        ("data.max_rows", 90, ("data.max_rows", "MEDIUM", "config")),
        ("model.init", ModelInit.PRETRAINED, ("model.init", "CRITICAL", "config")),
        ("seed", 2, ("seed", "LOW", "config")),
        ("name", "other", ("name", "LOW", "config")),
        ("recovery.max_restarts", 1, ("recovery.max_restarts", "LOW", "config")),
        ("report.sink", Sink.NONE, ("report.sink", "MEDIUM", "environment")),
        ("publish.dir", "elsewhere", ("publish.dir", "MEDIUM", "config")),
        ("pod.max_hours", 48.0, ("pod.max_hours", "MEDIUM", "pod")),
        ("pod.max_hours", 0.5, ("pod.max_hours", "LOW", "pod")),
        ("gates.level", GatesLevel.STATIC, ("gates.level", "MEDIUM", "gates")),
        ("gates.skip", {"data": "no rows"}, ("gates.skip.data", "MEDIUM", "gates")),
        ("pod.requirements", {"flash-attn": "2.8.3"}, ("flash-attn", "MEDIUM", "pins")),
        ("pod.requirements", {"trl": "1.15.0"}, ("trl", "MEDIUM", "pins")),
        ("pod.requirements", {"trl": "1.16.1"}, ("trl", "LOW", "pins")),
        ("pod.env", {"LANG": "C"}, ("gives LANG", "LOW", "environment")),
        ("predictions.enabled", True, ("predictions.enabled", "LOW", "config")),
    ],
)
def test_a_change_of_a_config_is_named_with_its_risk(
    plain: Side, key: str, value: object, named: tuple[str, str, str]
) -> None:
    name, risk, aspect = named

    change = only(diff(plain, side({key: value})), name)

    assert (change.risk.value, change.aspect.value) == (risk, aspect)
    assert change.needs_approval is (risk != "LOW")
    assert change.mitigation


def test_a_change_of_the_selection_rule_is_critical(plain: Side) -> None:
    difference = diff(plain, side({"trainer.eval_strategy": EvalStrategy.NO}))

    assert only(difference, "arguments.metric_for_best_model").risk is Risk.CRITICAL
    rule = next(item for item in difference.quantities if item.name == "selection rule")
    assert rule.after == "the last checkpoint"


def test_a_key_that_nothing_reads_needs_no_approval(plain: Side) -> None:
    # tiny_sft trains every weight, so the rank of an adapter is idle.
    change = only(diff(plain, side({"adapter.r": 64})), "adapter.r")

    assert (change.risk, change.needs_approval) == (Risk.LOW, False)


def test_the_same_effective_batch_by_other_numbers_needs_no_approval(plain: Side) -> None:
    accumulated = {
        "trainer.per_device_train_batch_size": 4,
        "trainer.gradient_accumulation_steps": 2,
    }

    difference = diff(plain, side(accumulated))

    assert difference.needing_approval == ()
    assert difference.quantities == ()


def test_another_effective_batch_is_told_as_what_it_means(plain: Side) -> None:
    known = Known(train_rows=96)

    difference = diff(plain, side({"trainer.gradient_accumulation_steps": 2}), known=(known, known))

    told = {item.name: (item.before, item.after) for item in difference.quantities}
    assert told["effective batch"] == ("8 sequences per step", "16 sequences per step")
    assert told["steps"] == ("144", "72")
    assert told["tokens"] == (
        "at most 768 per step, 110,592 in all",
        "at most 1,536 per step, 110,592 in all",
    )


def test_what_is_expected_is_told_beside_the_rest(plain: Side) -> None:
    one = Known(expected=Expected(memory="12 GiB", dollars="$1.20"))
    other = Known(expected=Expected(memory="31 GiB"))

    difference = diff(plain, plain, known=(one, other))

    told = {item.name: (item.before, item.after) for item in difference.quantities}
    assert told == {"memory": ("12 GiB", "31 GiB"), "dollars": ("$1.20", "unknown")}


def test_the_value_of_a_variable_is_never_shown() -> None:
    one, other = side({"pod.env": {"A_PATH": "alpha"}}), side({"pod.env": {"A_PATH": "beta"}})

    change = only(diff(one, other), "gives A_PATH")

    assert (change.verb, change.needs_approval) == (Verb.CHANGED, True)
    assert "alpha" not in change.detail


# Changes of the program.


def test_another_constant_in_the_formula_is_a_change_of_the_scorer(
    edited: Edited, plain: Side
) -> None:
    here = edited("0.1 * min(math.exp(loss) / 20.0, 1.0)", "0.1 * min(math.exp(loss) / 25.0, 1.0)")

    change = only(diff(plain, here), "module scorer: _seed_v1")

    assert (change.aspect, change.needs_approval) == (Aspect.SCORER, True)
    assert change.detail == "has other constants: 20.0 -> 25.0"


CONSTRUCTOR = "def __init__(self, plan: ScorerPlan, report: Report, stop: StopRequest) -> None:"
READS = 'environment.get("PODPROOF_DATA")'
# (text of the program, text in its place, name of the change, what happened, its risk)
EDITS = (
    (
        CONSTRUCTOR,
        "def __init__(self, plan, report, stop, user):",
        "PodCallback.__init__ parameters",
        "changed CRITICAL",
    ),
    (
        CONSTRUCTOR,
        "def __init__(self, plan, report, stop, user=''):",
        "PodCallback.__init__ parameters",
        "changed LOW",
    ),
    (
        'EventKind.CHECKPOINT_SAVED, {"path": path}',
        "None, path",
        "PodCallback.on_save",
        "changed MEDIUM",
    ),
    (
        '        "nonfinite_train_logs": seen.nonfinite_count,\n',
        "",
        "fields of event evaluation: nonfinite_train_logs",
        "removed CRITICAL",
    ),
    (
        '        "checkpoint_score": logs[SCORE_KEY],',
        '        "rank": 1, "checkpoint_score": logs[SCORE_KEY],',
        "fields of event evaluation: rank",
        "added LOW",
    ),
    ('    NEW_BEST = "new_best"', "", "EventKind.NEW_BEST", "removed CRITICAL"),
    ("\n    step: int | None\n    epoch: float | None\n", "\n", "Event.epoch", "removed CRITICAL"),
    ("FLUSH_SECONDS = 30.0", "FLUSH_SECONDS = 31.0", "FLUSH_SECONDS", "changed MEDIUM"),
    (READS, 'environment["MY_DATA"]', "reads MY_DATA", "added CRITICAL"),
    (READS, 'environment.get("MY_DATA")', "reads MY_DATA", "added LOW"),
    (
        "    environment = os.environ\n",
        "    environment = os.environ; import pandas\n",
        "import pandas",
        "added CRITICAL",
    ),
    (
        "def score_bound(",
        "def extra_bound(): return 0.0\ndef score_bound(",
        "module scorer: extra_bound",
        "added MEDIUM",
    ),
)


@pytest.mark.parametrize(("old", "new", "name", "what"), EDITS, ids=range(len(EDITS)))
def test_a_change_of_the_program_is_named_with_its_risk(
    edited: Edited, old: str, new: str, name: str, what: str
) -> None:
    change = only(diff(PLAIN, edited(old, new)), name)

    assert f"{change.verb.value} {change.risk.value}" == what
    assert change.needs_approval is (change.risk is not Risk.LOW)


def test_a_part_that_a_plan_asks_for_is_told_as_a_module(plain: Side) -> None:
    answering = lower(changed(BASE, {"predictions.enabled": True}))

    difference = diff(plain, side_of(compile_run(answering), "with predictions"))

    assert only(difference, "module predictions").risk is Risk.LOW
    assert {item.aspect for item in difference.changes} == {
        Aspect.CODE,
        Aspect.CONFIG,
        Aspect.SIZE,
    }


def test_a_script_that_is_not_python_is_refused() -> None:
    with pytest.raises(BadScript, match="is not Python"):
        side_of_text("def (", "broken.py")


def test_a_side_read_from_files_has_the_run_it_was_compiled_from(plain: Side) -> None:
    beside = json.loads(json.dumps({"pod": plain.pod, "gates": plain.gates}))

    run = side_of_text(plain.text, "from files", beside).run

    assert run == SCRIPT.run


def test_a_plan_of_another_podproof_is_compared_as_it_stands(plain: Side) -> None:
    older = side_of_text(plain.text.replace('"gpu_count": 1', '"gpus": 1'), "older")

    difference = diff(older, plain)

    assert {("gpus", Verb.REMOVED), ("gpu_count", Verb.ADDED)} <= {
        (name, verb) for _, name, verb in names(difference)
    }
    assert older.typed_plan is None


# Laws.

VALUES = st.fixed_dictionaries(
    {},
    optional={
        "trainer.learning_rate": st.sampled_from([1e-4, 2e-4]),
        "trainer.gradient_accumulation_steps": st.sampled_from([1, 2]),
        "scorer.name": st.sampled_from([ScorerName.EVAL_LOSS, ScorerName.SEED_V1]),
        "adapter.kind": st.sampled_from([AdapterKind.LORA, AdapterKind.NONE]),
        "pod.env": st.dictionaries(st.sampled_from(["LANG", "A"]), st.sampled_from(["C", "D"])),
        "pod.requirements": st.sampled_from([{}, {"flash-attn": "2.8.3"}, {"trl": "1.16.1"}]),
        "data.max_rows": st.sampled_from([None, 90]),
        "gates.skip": st.sampled_from([{}, {"data": "no rows here"}]),
        "recovery.resume": st.sampled_from(["auto", "/workspace/run/checkpoint-3"]),
    },
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES, VALUES)
def test_the_way_back_names_the_same_things(
    ones: dict[str, object], others: dict[str, object]
) -> None:
    one, other = side(ones), side(others)

    there, back = diff(one, other), diff(other, one)

    assert names(there) == {(aspect, name, TURNED[verb]) for aspect, name, verb in names(back)}
    assert diff(one, one).changes == ()


def test_the_manifest_tells_pod_and_gates_without_values() -> None:
    values = {"pod.env": {"WORD": "hush"}, "gates.skip": {"data": "no rows"}}
    script = compile_run(lower(changed(BASE, values)))

    beside = manifest(script)

    assert "hush" not in json.dumps(beside)
    assert list(beside["pod"]["env"]) == ["WORD"]
    assert beside["gates"] == {"level": "fast", "skip": {"data": "no rows"}}
