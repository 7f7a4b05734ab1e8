"""The rows that the data gate counts as lost are those that TRL's own trainers drop."""

from pathlib import Path
from typing import Any

import pytest

from podproof.runtime.models import DEFAULT_CHAT_TEMPLATE
from podproof.runtime.plan import MethodName
from tests.harness.data_world import ask, data_of, model_folder, plan_of

MAX_LENGTH = 64
# Prompts on both sides of where nothing is left, byte by byte where the vocabulary ends.
WORDS = ("", "len ", "len counts ", "x" * 20, "x" * 40, "x " * 22, "x " * 24, "ß" * 30, "y" * 300)


def text_rows(answer: str) -> list[dict[str, Any]]:
    return [{"prompt": f"{word}?", answer: "a"} for word in WORDS]


def turn_rows(answer: str) -> list[dict[str, Any]]:
    said = [{"role": "assistant", "content": "a"}]
    return [{"prompt": [{"role": "user", "content": f"{word}?"}], answer: said} for word in WORDS]


def rejected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    worse: Any = (
        "b" if isinstance(rows[0]["chosen"], str) else [{"role": "assistant", "content": "b"}]
    )
    return [{**row, "rejected": worse} for row in rows]


def talk_rows() -> list[dict[str, Any]]:
    rows = turn_rows("completion")
    return [{"messages": [*row["prompt"], *row["completion"]]} for row in rows]


def kept_by_trl(method: MethodName, model: str, rows: list[dict[str, Any]], **fields: Any) -> int:
    """Return how many rows a stock trainer of TRL keeps."""
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    classes = {MethodName.SFT: (SFTTrainer, SFTConfig), MethodName.DPO: (DPOTrainer, DPOConfig)}
    trainer_class, config_class = classes[method]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": len(tokenizer)}
    made = [LlamaForCausalLM(LlamaConfig(**sizes, **heads)) for _ in range(2)]
    models = dict(zip(("model", "ref_model"), made, strict=True))
    if method is MethodName.SFT:
        del models["ref_model"]
    trainer = trainer_class(
        **models,
        args=config_class(
            output_dir=str(Path(model).parent / "output"),
            max_length=MAX_LENGTH,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            **fields,
        ),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
    )
    return len(trainer.train_dataset)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "rows", "fields"),
    [
        (MethodName.SFT, text_rows("completion"), {}),
        (MethodName.SFT, turn_rows("completion"), {}),
        (MethodName.SFT, talk_rows(), {}),
        (MethodName.SFT, talk_rows(), {"assistant_only_loss": True}),
        (MethodName.SFT, turn_rows("completion"), {"assistant_only_loss": True}),
        (MethodName.DPO, rejected(text_rows("chosen")), {}),
        (MethodName.DPO, rejected(turn_rows("chosen")), {}),
    ],
)
def test_the_gate_loses_the_rows_that_trl_drops(
    tmp_path: Path, method: MethodName, rows: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    model = model_folder(tmp_path, chat_template=DEFAULT_CHAT_TEMPLATE)
    data = data_of(tmp_path, rows, max_bad_fraction=0.9)
    plan = plan_of(data, method=method, model=model, max_length=MAX_LENGTH, **fields)

    kept = kept_by_trl(method, model.name_or_path, rows, **fields)

    lost = ask(tmp_path, plan).details["tokens"]["train"]["no_room"]
    assert len(rows) - lost == kept
