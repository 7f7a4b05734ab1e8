"""A plan made small keeps its architecture, its method and its scorer, and says what it lost."""

from podproof.harness.shrink import plan_to_build, plan_to_train, with_stand_in, without_targets
from podproof.runtime.plan import DataPlan, ModelInit, PublishTo, Sink
from tests.harness.conftest import script_of

DATA = DataPlan(path="few.jsonl")


def test_a_plan_to_build_keeps_the_arguments_and_says_which_it_cannot_try() -> None:
    plan = script_of("experiment=qwen3_8b_full_sft", "pod.network_volume=a").run.plan

    small = plan_to_build(plan, DATA)

    assert small.notes == ("one process instead of 8", "fsdp left out", "fsdp_config left out")
    assert small.plan.arguments["learning_rate"] == plan.arguments["learning_rate"]
    assert small.plan.arguments["per_device_train_batch_size"] == 2
    assert (small.plan.gpu_count, small.plan.data) == (1, DATA)


def test_an_optimizer_whose_package_only_the_pod_will_have_is_left_out_and_said() -> None:
    plan = script_of(
        "experiment=tiny_sft",
        "trainer.optim=galore_adamw",
        "+trainer.extra.optim_target_modules=[q_proj]",
        "+pod.requirements.galore-torch='1.0'",
    ).run.plan

    small = plan_to_train(plan, DATA)

    assert small.notes == ("optim=galore_adamw left out: galore-torch is not installed here",)
    assert not {"optim", "optim_target_modules"} & small.plan.arguments.keys()


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
