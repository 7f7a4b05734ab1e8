"""The plan: one value, one JSON literal, the same on both sides; and all that is wrong with it."""

import json
import math
from dataclasses import asdict, fields, is_dataclass
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings, strategies as st

from podproof.runtime.errors import BadPlan, Problem
from podproof.runtime.plan import (
    AdapterPlan,
    DataPlan,
    MethodName,
    ModelPlan,
    Plan,
    PredictionsPlan,
    PublishPlan,
    RecoveryPlan,
    ReportPlan,
    ScorerPlan,
    plan_from_json,
    plan_to_json,
)
from podproof.runtime.reader import read_section

PLAN = Plan(
    name="tiny",
    seed=1,
    method=MethodName.DPO,
    model=ModelPlan(config={"model_type": "llama", "layers": [1, 2.5, None, True, "x"]}),
    data=DataPlan(path="rows.jsonl", columns={"prompt": "question"}),
    adapter=AdapterPlan(target_modules=("q_proj", "v_proj")),
    arguments={"learning_rate": 1e-4, "loss_type": ["sigmoid"], "max_length": None},
    scorer=ScorerPlan(),
    recovery=RecoveryPlan(),
    predictions=PredictionsPlan(),
    report=ReportPlan(),
    publish=PublishPlan(),
    gpu_count=1,
    node_count=1,
    config_sha256="c" * 64,
)

# Any text at all, halves of surrogate pairs too.
TEXT = st.text(st.characters(), max_size=8)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of one field of the plan."""
    if is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        return st.builds(hint, **{item.name: values_of(hints[item.name]) for item in fields(hint)})
    plain = {
        str: TEXT,
        float: NUMBERS,
        str | None: st.none() | TEXT,
        float | None: st.none() | NUMBERS,
        dict[str, Any]: st.dictionaries(TEXT, JSON_VALUES, max_size=3),
        dict[str, str]: st.dictionaries(TEXT, TEXT, max_size=3),
        tuple[str, ...]: st.lists(TEXT, max_size=3).map(tuple),
    }
    return plain[hint] if hint in plain else st.from_type(hint)


def refusal(text: str) -> dict[str, str]:
    with pytest.raises(BadPlan) as refused:
        plan_from_json(text)
    return {problem.where: problem.what for problem in refused.value.problems}


def written(**changes: Any) -> str:
    """Return the JSON of the plan with some of its top fields replaced."""
    return json.dumps({**asdict(PLAN), **changes})


@settings(max_examples=60)
@given(values_of(Plan))
def test_any_plan_comes_back_out_of_its_json(plan: Plan) -> None:
    assert plan_from_json(plan_to_json(plan)) == plan


@settings(max_examples=60)
@given(values_of(Plan))
def test_the_json_of_any_plan_is_ascii_strict_and_sorted(plan: Plan) -> None:
    text = plan_to_json(plan)

    fields_back = json.loads(text, parse_constant=pytest.fail)
    assert text.isascii()
    assert text == json.dumps(fields_back, indent=2, sort_keys=True)


def test_a_number_that_json_does_not_have_is_not_written() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        plan_to_json(Plan(**{**PLAN.__dict__, "arguments": {"learning_rate": math.inf}}))


def test_everything_wrong_is_told_at_once_with_its_place() -> None:
    broken = asdict(PLAN)
    del broken["gpu_count"]
    broken["sed"] = 1
    broken["seed"] = "one"
    broken["method"] = "ppo"
    broken["model"] = {**broken["model"], "revision": 3, "colour": "red"}
    broken["data"]["eval"]["fraction"] = "half"
    broken["adapter"]["target_modules"] = ["q_proj", 4]
    broken["data"]["columns"] = {"prompt": None}
    broken["report"] = None

    assert refusal(json.dumps(broken)) == {
        "plan.gpu_count": "missing field",
        "plan.sed": "unknown field",
        "plan.seed": "must be a whole number, got 'one'",
        "plan.method": "must be one of sft, dpo, orpo, got 'ppo'",
        "plan.model.revision": "must be text or null, got 3",
        "plan.model.colour": "unknown field",
        "plan.data.eval.fraction": "must be a number or null, got 'half'",
        "plan.adapter.target_modules": "must be text, got 4",
        "plan.data.columns.prompt": "must be text, got None",
        "plan.report": "must be an object, got NoneType",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        '{"a": NaN}',
        '{"a": -Infinity}',
        "{" * 100_000,
        "[" * 100_000,
        '{"a": ' + "9" * 5000 + "}",
    ],
    ids=["empty", "words", "nan", "infinity", "open braces", "deep", "5000 digits"],
)
def test_text_that_is_no_strict_json_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(BadPlan) as refused:
        plan_from_json(text)

    (problem,) = refused.value.problems
    assert problem.what.startswith("not JSON: ")
    assert problem.way_out == "compile the script again"


@pytest.mark.parametrize("text", ["[]", "3", "null", '"plan"'])
def test_json_that_is_no_object_is_refused(text: str) -> None:
    assert list(refusal(text)) == ["plan"]


@pytest.mark.parametrize("value", [True, "1", 1.5, None, [1]])
def test_a_whole_number_is_nothing_else(value: object) -> None:
    assert set(refusal(written(seed=value))) == {"plan.seed"}


def test_a_whole_number_is_read_as_a_number_where_one_is_due() -> None:
    scorer = asdict(PLAN)["scorer"] | {"gap_weight": 1}

    plan = plan_from_json(written(scorer=scorer))

    assert plan.scorer.gap_weight == 1.0
    assert isinstance(plan.scorer.gap_weight, float)


def test_a_whole_number_too_large_to_be_a_number_is_refused_by_name() -> None:
    scorer = asdict(PLAN)["scorer"] | {"gap_weight": 10**400}

    problems = refusal(written(scorer=scorer))

    assert problems["plan.scorer.gap_weight"].startswith("must be a number below 1e308")


def test_a_section_is_read_without_problems_when_there_are_none() -> None:
    problems: list[Problem] = []

    fields = {"to": "none", "dir": "x", "repo_id": None, "private": True}
    section = read_section(PublishPlan, fields, "publish", problems)

    assert (section.dir, problems) == ("x", [])
