"""Small models of every family, and setups to hold estimates of them against."""

import warnings
from typing import Any

from podproof.compiler.architecture import FAMILIES, Architecture, NotEstimated, architecture_of
from podproof.compiler.training_setup import Sharding, TrainingSetup
from podproof.runtime.plan import AdapterKind, AdapterPlan, MethodName

WITH_EXPERTS = ("mixtral", "qwen3_moe")
DENSE = tuple(family for family in FAMILIES if family not in WITH_EXPERTS)


def config_of(family: str, **changes: Any) -> dict[str, Any]:
    """Return the config of a model of some 100,000 parameters."""
    config: dict[str, Any] = {
        "model_type": family,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 300,
    }
    if family in WITH_EXPERTS:
        config |= {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}
    if family == "qwen3_moe":
        config |= {"moe_intermediate_size": 48}
    return {**config, **changes}


def shape_of(family: str = "llama", **changes: Any) -> Architecture:
    found = architecture_of(config_of(family, **changes))
    assert not isinstance(found, NotEstimated), found
    return found


def setup(**changes: Any) -> TrainingSetup:
    """Return a setup of one GPU that trains every weight in bfloat16, with some fields changed."""
    fields: dict[str, Any] = {
        "method": MethodName.SFT,
        "adapter": AdapterPlan(kind=AdapterKind.NONE),
        "weight_bytes": 2,
        "compute_bytes": 2,
        "batch": 2,
        "eval_batch": 2,
        "accumulation": 1,
        "length": 48,
        "is_packed": False,
        "has_checkpointing": False,
        "attention": "sdpa",
        "optim": "adamw_torch_fused",
        "sharding": Sharding.NONE,
        "zero_stage": 0,
        "is_offloaded": False,
        "ranks": 1,
        "evaluates": True,
        "is_compared": False,
    }
    return TrainingSetup(**{**fields, **changes})


def adapter(kind: AdapterKind = AdapterKind.LORA, **changes: Any) -> AdapterPlan:
    return AdapterPlan(kind=kind, **{"r": 8, "lora_dropout": 0.0, **changes})


def model_of(config: dict[str, Any], attention: str = "sdpa", device: str = "cpu") -> Any:
    """Build the model of transformers that a config describes; on `meta` it takes no memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    full = AutoConfig.for_model(**config, **tokens)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(full, attn_implementation=attention)


def with_adapter(model: Any, plan: AdapterPlan) -> Any:
    from peft import get_peft_model

    from podproof.runtime.models import lora_config

    with warnings.catch_warnings():
        # The pinned PEFT asks the pinned transformers for a name that is going away.
        warnings.simplefilter("ignore", FutureWarning)
        adapted = get_peft_model(model, lora_config(plan))
    adapted.enable_input_require_grads()
    return adapted
