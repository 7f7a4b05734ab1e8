"""Which weights are trained: all of them, or those of low-rank adapters, counted exactly."""

from collections.abc import Iterator

from podproof.compiler.architecture import Architecture, LinearLayer
from podproof.runtime.plan import AdapterKind, AdapterPlan

_ALL_LINEAR = ("all-linear",)
# The embedding and the head stand outside the layers; an adapter takes them only by name.
_OUTSIDE = frozenset({"embed_tokens", "lm_head"})


def adapted_layers(architecture: Architecture, adapter: AdapterPlan) -> tuple[LinearLayer, ...]:
    """Return the matrices of one layer that get an adapter.

    PEFT takes a module whose name is a target, or ends with a dot and the target; `all-linear` is
    every nn.Linear but the head. Experts are no nn.Linear and get none.
    """
    if adapter.kind is AdapterKind.NONE:
        return ()
    if adapter.target_modules == _ALL_LINEAR:
        return architecture.linears
    wanted = {target.rpartition(".")[2] for target in adapter.target_modules}
    return tuple(linear for linear in architecture.linears if linear.name in wanted)


def adapter_parameters(architecture: Architecture, adapter: AdapterPlan) -> int:
    """Return the trained weights of the adapters: r x (inputs + outputs) for each matrix.

    Hu et al. 2021 (LoRA), section 4.1: A is r x inputs, B is outputs x r. Biases count where
    `adapter.bias` trains them, and so do the copies that `modules_to_save` trains whole.
    """
    layers = adapted_layers(architecture, adapter)
    low_rank = sum(adapter.r * (linear.inputs + linear.outputs) for linear in layers)
    return architecture.layers * low_rank + sum(_extra(architecture, adapter, layers))


def trainable_parameters(architecture: Architecture, adapter: AdapterPlan) -> int:
    """Return how many weights are trained."""
    if adapter.kind is AdapterKind.NONE:
        return architecture.parameters
    return adapter_parameters(architecture, adapter)


def _extra(
    architecture: Architecture, adapter: AdapterPlan, layers: tuple[LinearLayer, ...]
) -> Iterator[int]:
    biased = {"all": architecture.linears, "lora_only": layers}.get(adapter.bias, ())
    yield architecture.layers * sum(linear.outputs for linear in biased if linear.has_bias)
    yield (
        architecture.vocabulary * architecture.hidden * len(_OUTSIDE & set(adapter.modules_to_save))
    )
    outside = len(_OUTSIDE & set(adapter.target_modules))
    yield adapter.r * (architecture.vocabulary + architecture.hidden) * outside
