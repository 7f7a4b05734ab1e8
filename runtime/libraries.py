"""The training libraries, asked to behave: no telemetry, no noise, no cores kept busy waiting."""

import os
import platform
import warnings
from importlib import metadata

_LIBRARY_ENVIRONMENT = {
    # Torch's threads spin while they wait for each other, which on shared cores keeps them from
    # what they wait for: 24 steps of a tiny model took 24 to 72 s beside other work, 4.5 s so.
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    # ORPO lives in trl.experimental, which warns at every import.
    "TRL_EXPERIMENTAL_SILENCE": "1",
    # Tokenizer threads and forked data loaders deadlock together.
    "TOKENIZERS_PARALLELISM": "false",
}


def prepare_training_libraries() -> None:
    """Ask the training libraries to behave; call it before the first of them is imported.

    They read the environment when they are imported, so nothing later would help. What the
    environment already says is left as it is.
    """
    for name, value in _LIBRARY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # The pinned TRL asks transformers by an old name at each step of DPO; PEFT misses the config of
    # a model from a package at each save. Neither changes anything.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    warnings.filterwarnings("ignore", "Could not find a config file in package:", UserWarning)


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of what trains, by name."""
    packages = ("torch", "transformers", "trl", "peft")
    versions = {name: metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **versions}
