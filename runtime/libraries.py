"""The training libraries, asked to be quiet: no telemetry, no progress bars, no known warnings."""

import os
import warnings

_QUIET_ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    # ORPO lives in trl.experimental, which warns at every import.
    "TRL_EXPERIMENTAL_SILENCE": "1",
    # Tokenizer threads and forked data loaders deadlock together.
    "TOKENIZERS_PARALLELISM": "false",
}


def quiet_training_libraries() -> None:
    """Ask the training libraries to be quiet; call it before the first of them is imported.

    They read the environment when they are imported, so nothing later would help. What the
    environment already says is left as it is.
    """
    for name, value in _QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # The pinned TRL asks transformers by an old name at each step of DPO; PEFT misses the config of
    # a model from a package at each save. Neither changes anything.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    warnings.filterwarnings("ignore", "Could not find a config file in package:", UserWarning)
