"""What must fit each other on a rented pod: the GPU, its driver, the torch that will be there."""

from collections.abc import Iterator

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from podproof.compiler.gpus import Gpu, gpus, nearest_gpu
from podproof.compiler.ir import Provider
from podproof.compiler.limits import CARRIED
from podproof.compiler.pins import POD_PINS
from podproof.compiler.schema import Config
from podproof.runtime.errors import Problem

# What the package index gives for `torch` is a build for CUDA 13 from this version on. A driver
# runs builds for its own major version of CUDA and for older ones (NVIDIA's compatibility guide).
_CUDA_13_SINCE = Version("2.13")
_CUDA_13 = 13
# CUDA 13 dropped what came before Turing; FlashAttention 2 needs Ampere.
_LEAST_CAPABILITY = 7.5
_FLASH_CAPABILITY = 8.0


def known_gpus(config: Config) -> Iterator[Problem]:
    """Refuse a GPU that RunPod is not known to have, which a launch would pass over."""
    for name in _rented(config):
        if name not in gpus() and CARRIED.fullmatch(name):
            near = nearest_gpu(name)
            way_out = f"did you mean {near}?" if near else "docs/reference/gpus.md lists every id"
            yield Problem("pod.gpu", f"RunPod has no GPU {name!r}", way_out)


def torch_and_driver(config: Config) -> Iterator[Problem]:
    """Refuse hosts whose driver is too old for the CUDA that torch was built with."""
    if not _rented(config) or not _needs_cuda_13(config):
        return
    for version in config.pod.cuda_versions:
        major = version.partition(".")[0]
        if major.isdecimal() and int(major) < _CUDA_13:
            what = (
                f"a host with CUDA {version} has a driver too old for the torch of the script, "
                f"{_torch(config)}, which is built for CUDA 13"
            )
            yield Problem("pod.cuda_versions", what, "set pod.cuda_versions=['13.0']")


def torch_and_gpu(config: Config) -> Iterator[Problem]:
    """Refuse GPUs that torch, or the attention asked for, has no kernels for."""
    known = [gpus()[name] for name in _rented(config) if name in gpus()]
    for gpu in known:
        what = _without_kernels(config, gpu)
        if what is not None:
            yield Problem("pod.gpu", f"{gpu.gpu_id} {what}", "take it off the list")


def _without_kernels(config: Config, gpu: Gpu) -> str | None:
    if gpu.compute_capability is None:
        return "is no NVIDIA GPU, and the torch of the script is built for CUDA"
    if gpu.compute_capability < _LEAST_CAPABILITY and _needs_cuda_13(config):
        return f"is older than what torch {_torch(config)}, built for CUDA 13, has kernels for"
    attention = config.model.attn_implementation or ""
    if "flash" in attention and gpu.compute_capability < _FLASH_CAPABILITY:
        return f"is too old for {attention}, which needs Ampere or newer"
    return None


def _rented(config: Config) -> tuple[str, ...]:
    return config.pod.gpu if config.pod.provider is Provider.RUNPOD else ()


def _torch(config: Config) -> str:
    own = [
        version
        for name, version in config.pod.requirements.items()
        if canonicalize_name(name) == "torch"
    ]
    return own[0] if own else POD_PINS["torch"]


def _needs_cuda_13(config: Config) -> bool:
    """Tell whether torch comes as a build for CUDA 13; `2.13.0+cu128` says another itself."""
    try:
        version = Version(_torch(config))
    except InvalidVersion:
        return False  # refused by a rule of its own
    return version.local is None and version >= _CUDA_13_SINCE


POD_RULES = (known_gpus, torch_and_driver, torch_and_gpu)
