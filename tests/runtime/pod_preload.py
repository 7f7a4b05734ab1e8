"""What every run imports, imported once in the process that the runs are forked from."""

from podproof.runtime.libraries import prepare_training_libraries


def preload() -> None:
    """Import the training libraries, and touch nothing that starts threads."""
    prepare_training_libraries()
    import datasets
    import peft
    import torch
    import trl
    import trl.experimental.orpo
    from tqdm import tqdm  # type: ignore[import-untyped]  # it ships no types
    from trl import DPOTrainer, SFTTrainer

    torch.set_num_threads(1)
    # Made here once: a run that is killed would leave its own behind.
    tqdm.get_lock()
    assert all((datasets, peft, trl.experimental.orpo, DPOTrainer, SFTTrainer))


preload()
