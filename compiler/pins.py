"""The exact versions that ride in every pod script; the same as constraints.txt (tested)."""

from collections.abc import Mapping

REQUIRES_PYTHON = ">=3.11"

# What every method imports.
POD_PINS: Mapping[str, str] = {
    "accelerate": "1.15.0",
    "datasets": "5.2.0",
    "peft": "0.21.2",
    "tokenizers": "0.23.3",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "trl": "1.16.0",
}

# What a setting needs beyond that: transformers asks for bitsandbytes >= 0.46.1 for 4-bit loading,
# and for some optimizers.
BITSANDBYTES_PINS: Mapping[str, str] = {"bitsandbytes": "0.50.2"}
DEEPSPEED_PINS: Mapping[str, str] = {"deepspeed": "0.19.8"}
GGUF_PINS: Mapping[str, str] = {"gguf": "0.19.0"}
HUB_PINS: Mapping[str, str] = {"huggingface-hub": "2.4.0"}
JSON_SCHEMA_PINS: Mapping[str, str] = {"jsonschema": "4.26.0"}
INTEGRATION_PINS: Mapping[str, Mapping[str, str]] = {
    "wandb": {"wandb": "0.31.0"},
    "trackio": {"trackio": "0.43.0"},
    "mlflow": {"mlflow": "3.17.2"},
    "tensorboard": {"tensorboard": "2.21.0"},
}
