"""A plan made small keeps its architecture, its method and its scorer, and says what it lost."""

import pytest

from podproof.harness.shrink import (
    family_of,
    plan_to_build,
    plan_to_train,
    shrunken_config,
    with_stand_in,
    without_targets,
)
from podproof.runtime.plan import DataPlan, ModelInit, PublishTo, Sink
from tests.harness.conftest import script_of

DATA = DataPlan(path="few.jsonl")


def test_heads_that_share_keys_go_on_to_share_them() -> None:
    grouped = shrunken_config({"num_attention_heads": 32, "num_key_value_heads": 8})
    each_its_own = shrunken_config({"num_attention_heads": 32, "num_key_value_heads": 32})

    assert (grouped["num_attention_heads"], grouped["num_key_value_heads"]) == (2, 1)
    assert each_its_own["num_key_value_heads"] == 2


def test_layers_of_several_kinds_stay_of_several_kinds() -> None:
    kinds = ["sliding_attention"] * 5 + ["full_attention"]

    small = shrunken_config({"num_hidden_layers": 12, "layer_types": kinds * 2})

    assert small["layer_types"] == ["sliding_attention", "full_attention"]


def test_the_factors_of_rotation_fit_the_smaller_heads() -> None:
    rope = {"rope_type": "longrope", "long_factor": [1.0] * 48, "short_factor": [1.0] * 48}

    assert len(shrunken_config({"rope_parameters": rope})["rope_parameters"]["long_factor"]) == 8


def test_what_is_no_size_stays_as_it_is() -> None:
    config = {"model_type": "qwen3", "vocab_size": 151936, "tie_word_embeddings": False}

    assert shrunken_config({**config, "use_cache": True}) == {**config, "use_cache": True}


def test_a_narrow_model_keeps_its_widths_and_heads_and_loses_layers() -> None:
    config = {"model_type": "codegen", "n_embd": 64, "n_head": 4, "n_layer": 3, "rotary_dim": 8}

    assert shrunken_config(config) == {**config, "n_layer": 2}


def test_a_wide_model_loses_both() -> None:
    small = shrunken_config({"hidden_size": 257, "num_attention_heads": 8, "num_hidden_layers": 3})

    assert small == {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama"),
        ("meta-llama/Llama-3.2-11B-Vision", None),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral"),
        ("Qwen/Qwen3-30B-A3B", "qwen3_moe"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2"),
        ("somebody/Qwen3-8B", None),
    ],
)
def test_a_well_known_name_tells_its_architecture(name: str, family: str | None) -> None:
    assert family_of(name) == family


def test_a_plan_to_build_keeps_the_arguments_and_says_which_it_cannot_try() -> None:
    plan = script_of("experiment=qwen3_8b_full_sft", "pod.network_volume=a").run.plan

    small = plan_to_build(plan, DATA)

    assert small.notes == ("one process instead of 8", "fsdp left out", "fsdp_config left out")
    assert small.plan.arguments["learning_rate"] == plan.arguments["learning_rate"]
    assert small.plan.arguments["per_device_train_batch_size"] == 2
    assert (small.plan.gpu_count, small.plan.data) == (1, DATA)


def test_a_plan_to_train_is_short_and_reports_to_nobody() -> None:
    plan = script_of("experiment=tiny_sft", "report.integrations=[tensorboard]").run.plan

    small = plan_to_train(plan, DATA).plan

    assert (small.arguments["max_steps"], small.arguments["eval_steps"]) == (8, 2)
    assert (small.arguments["report_to"], small.report.sink) == ("none", Sink.NONE)
    assert small.scorer == plan.scorer
    assert small.arguments["save_total_limit"] == plan.arguments["save_total_limit"]


def test_a_plan_that_evaluates_by_epoch_or_never_goes_on_to_do_so() -> None:
    by_epoch = script_of("experiment=tiny_sft", "trainer.eval_strategy=epoch").run.plan
    never = script_of("experiment=tiny_sft", "trainer.eval_strategy=no").run.plan

    assert plan_to_train(by_epoch, DATA).plan.arguments["max_steps"] == -1
    assert "eval_steps" not in plan_to_train(never, DATA).plan.arguments


def test_the_hub_and_another_runs_checkpoint_are_left_out_and_said() -> None:
    plan = script_of(
        "experiment=qwen3_8b_dpo",
        "pod.network_volume=a",
        "publish=hub",
        "publish.repo_id=me/mine",
        "pod.secrets.HF_TOKEN=HF_TOKEN",
        "recovery.resume=/workspace/other/checkpoint-8",
    ).run.plan

    small = plan_to_train(plan, DATA)

    assert small.plan.publish.to is PublishTo.DIR
    assert small.notes == (
        "published to a folder instead of the hub",
        "begun from nothing instead of /workspace/other/checkpoint-8",
    )


def test_a_stand_in_is_drawn_at_random_and_any_adapter_fits_it() -> None:
    plan = script_of(
        "experiment=qwen3_8b_dpo", "pod.network_volume=a", "adapter.target_modules=[c_attn]"
    ).run.plan

    small = without_targets(with_stand_in(plan, {"model_type": "llama"}))

    assert small.model.init is ModelInit.RANDOM
    assert small.adapter.target_modules == ("all-linear",)
