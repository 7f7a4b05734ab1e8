"""What the optimizers of transformers need beside torch, by their names.

Source: transformers 5.23, `trainer_optimizer.py`: each of these raises when its package is absent.
"""

from collections.abc import Mapping

BITSANDBYTES_OPTIMIZERS = frozenset(
    {
        "adamw_bnb_8bit",
        "adamw_8bit",
        "ademamix",
        "ademamix_8bit",
        "lion_8bit",
        "lion_32bit",
        "paged_adamw_32bit",
        "paged_adamw_8bit",
        "paged_ademamix_32bit",
        "paged_ademamix_8bit",
        "paged_lion_32bit",
        "paged_lion_8bit",
        "rmsprop_bnb",
        "rmsprop_bnb_8bit",
        "rmsprop_bnb_32bit",
    }
)

# Packages that podproof does not pin, by the beginning of the optimizer's name.
PACKAGES_OF_OPTIMIZERS: Mapping[str, str] = {
    "galore_": "galore-torch",
    "apollo_": "apollo-torch",
    "lomo": "lomo-optim",
    "adalomo": "lomo-optim",
    "grokadamw": "grokadamw",
    "schedule_free_": "schedulefree",
    "stable_adamw": "torch-optimi",
    "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao",
    "adamw_anyprecision": "torchdistx",
}

# They train chosen modules only, and raise when none are chosen.
TARGETING_OPTIMIZERS = ("galore_", "apollo_")

# For hardware that no pod has.
FOREIGN_OPTIMIZERS = frozenset({"adamw_torch_xla", "adamw_torch_npu_fused"})

# These step by a share of the gradient; all others move each weight by about the learning rate.
GRADIENT_SIZED_OPTIMIZERS = frozenset({"sgd", "schedule_free_sgd"})


def package_of(optimizer: str) -> str | None:
    """Return the package an optimizer needs that no pin brings; None when it needs no other.

    >>> package_of("galore_adamw_8bit"), package_of("adamw_torch_fused")
    ('galore-torch', None)
    """
    found = (
        package for start, package in PACKAGES_OF_OPTIMIZERS.items() if optimizer.startswith(start)
    )
    return next(found, None)
