"""The trainer gate: what the libraries refuse, or pass over in silence, is told with its key."""

import shutil
from pathlib import Path

import pytest

from podproof.harness.small_job import other_versions
from podproof.harness.smoke import smoke_answer
from podproof.harness.trainer import trainer_answer
from podproof.harness.verdict import Surroundings
from podproof.runtime.errors import Problem
from tests.harness.conftest import AT_HAND, SoundOutput, script_of

LORA = ("experiment=tiny_sft", "adapter=lora")


def problems_of(surroundings: Surroundings, *overrides: str) -> tuple[Problem, ...]:
    return trainer_answer(script_of(*overrides), surroundings)[1]


@pytest.mark.parametrize("overrides", [("experiment=tiny_dpo",), LORA])
def test_a_trainer_that_can_be_built_is_cleared(
    overrides: tuple[str, ...], warm_at_hand: Surroundings
) -> None:
    assert problems_of(warm_at_hand, *overrides) == ()


def test_the_summary_says_what_was_built_and_on_which_rows(warm_at_hand: Surroundings) -> None:
    summary, _ = trainer_answer(script_of(*LORA), warm_at_hand)

    assert summary == (
        "SFTTrainer (trl==1.16.0): 47,104 of 260,736 weights trained; a llama of 2 layers; "
        "16 rows of sft.jsonl"
    )


def test_a_target_that_no_module_has_is_refused_with_those_there_are(
    warm_at_hand: Surroundings,
) -> None:
    (problem,) = problems_of(warm_at_hand, *LORA, "adapter.target_modules=[c_attn]")

    assert problem.where == "adapter.target_modules"
    assert "'c_attn'" in problem.what
    assert "q_proj, up_proj, v_proj" in problem.way_out


def test_one_target_of_several_that_fits_nothing_is_refused_though_peft_says_nothing(
    warm_at_hand: Surroundings,
) -> None:
    targets = "adapter.target_modules=[q_proj,vproj]"
    problems = problems_of(warm_at_hand, *LORA, targets, "adapter.modules_to_save=[lm_heat]")

    assert [problem.where for problem in problems] == [
        "adapter.target_modules",
        "adapter.modules_to_save",
    ]
    assert problems[0].way_out.startswith("did you mean v_proj?")


def test_an_argument_that_is_judged_when_the_schedule_is_made_is_refused_in_its_words(
    warm_at_hand: Surroundings,
) -> None:
    (problem,) = problems_of(
        warm_at_hand,
        "experiment=tiny_sft",
        "trainer.lr_scheduler_type=polynomial",
        "+trainer.extra.lr_scheduler_kwargs.lr_end=0.9",
    )

    assert "lr_end" in problem.what
    assert problem.where == "trainer"


def test_a_model_that_is_not_at_hand_is_known_by_its_name(warm_at_hand: Surroundings) -> None:
    script = script_of(
        "experiment=qwen3_8b_dpo", "pod.network_volume=a", "adapter.target_modules=[c_attn]"
    )

    summary, problems = trainer_answer(script, warm_at_hand)

    assert "Qwen/Qwen3-8B is not at hand: a qwen3 of 2 layers" in summary
    assert "made rows, for the data are not at hand" in summary
    assert [problem.where for problem in problems] == ["adapter.target_modules"]


def test_a_model_in_a_folder_keeps_its_architecture_its_tokenizer_and_its_template(
    warm_at_hand: Surroundings, sound_output: SoundOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(sound_output.kept)
    model = ("model.init=pretrained", "model.name_or_path=./delivered", "model.config={}")
    script = script_of(*LORA, *model, "model.tokenizer_vocab_size=null")

    for answer in (trainer_answer, smoke_answer):
        summary, problems = answer(script, warm_at_hand)

        assert problems == ()
        assert "a llama of 2 layers with the tokenizer of" in summary


def test_a_model_that_nobody_knows_is_stood_in_for_and_its_targets_are_not_judged(
    warm_at_hand: Surroundings,
) -> None:
    script = script_of(
        "experiment=qwen3_8b_dpo",
        "pod.network_volume=a",
        "model.name_or_path=mine/of-a-kind",
        "adapter.target_modules=[c_attn]",
    )

    summary, problems = trainer_answer(script, warm_at_hand)

    assert problems == ()
    assert "a llama stands in, adapter.target_modules untried" in summary


def test_rows_that_cannot_be_trained_on_are_replaced_for_the_data_gate_refuses_them(
    tmp_path_factory: pytest.TempPathFactory, warm_at_hand: Surroundings
) -> None:
    rows = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows.write_text("{broken\n")

    summary, problems = trainer_answer(
        script_of("experiment=tiny_sft", f"data.path={rows}"), warm_at_hand
    )

    assert problems == ()
    assert "made rows, for those at hand cannot be read" in summary


def test_libraries_of_another_version_than_pinned_are_told() -> None:
    assert other_versions(("trl==1.16.0", "peft==0.1.0")) == (
        "peft 0.21.2 tried instead of the pinned 0.1.0",
    )
    assert other_versions(("torch==2.13.0",)) == ()


@pytest.mark.slow
def test_a_model_in_the_local_cache_of_the_hub_is_at_hand_without_a_network(
    sound_output: SoundOutput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "models--mine--tiny"
    shutil.copytree(sound_output.kept / "delivered", place / "snapshots" / "abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    model = ("model.init=pretrained", "model.name_or_path=mine/tiny", "model.config={}")
    script = script_of(*LORA, *model, "model.tokenizer_vocab_size=null")

    summary, problems = trainer_answer(script, AT_HAND)

    assert problems == ()
    assert "a llama of 2 layers with the tokenizer of mine/tiny" in summary
