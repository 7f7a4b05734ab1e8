"""What must fit each other on a rented pod: the GPU, its driver, the torch that will be there."""

import re
from collections.abc import Iterator

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from podproof.compiler.gpus import Gpu, gpus, nearest_gpu
from podproof.compiler.ir import Cloud, Provider
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
# Packages and a model of some GB are there after about ten minutes, as a rule.
_LEAST_HOURS = 0.2


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


def data_centers(config: Config) -> Iterator[Problem]:
    """Refuse a network volume, or a data center, where RunPod cannot have it.

    Network volumes are in data centers, and those are the secure cloud (RunPod's documentation).
    """
    pod = config.pod
    if pod.provider is not Provider.RUNPOD:
        return
    if pod.network_volume is not None:
        if pod.cloud is Cloud.COMMUNITY:
            what = "hosts of the community have no network volumes"
            yield Problem("pod.cloud", what, "set pod.cloud=SECURE")
        if not re.fullmatch(r"[A-Za-z0-9_-]+", pod.network_volume):
            what = f"{pod.network_volume!r} is no id of a network volume"
            yield Problem("pod.network_volume", what, "RunPod's console shows it under Storage")
    for name in pod.data_centers:
        if CARRIED.fullmatch(name) and name != name.upper():
            what = f"RunPod has no data center {name!r}"
            yield Problem("pod.data_centers", what, f"write {name.upper()}")


def image_for_cuda(config: Config) -> Iterator[Problem]:
    """Refuse an image for AMD's GPUs: the torch of the script is built for CUDA."""
    pod = config.pod
    if pod.provider is Provider.RUNPOD and "rocm" in pod.image.lower():
        what = f"{pod.image} is for GPUs of AMD, and the torch of the script is built for CUDA"
        yield Problem("pod.image", what, "choose one with CUDA, such as that of pod=runpod_80gb")


def time_enough(config: Config) -> Iterator[Problem]:
    """Refuse a limit that ends a rented pod before it has installed what it trains with."""
    pod = config.pod
    if pod.provider is not Provider.RUNPOD:
        return
    if 0 < pod.max_hours < _LEAST_HOURS:
        what = f"{pod.max_hours:g} h are over before a pod has installed its packages"
        yield Problem("pod.max_hours", what, f"set pod.max_hours={_LEAST_HOURS:g} or more")
    usd_per_h = _least_usd_per_h(config)
    if pod.max_usd is None or usd_per_h is None or pod.max_usd <= 0:
        return
    if pod.max_usd < _LEAST_HOURS * usd_per_h:
        what = (
            f"{pod.max_usd:g} USD pay for {60 * pod.max_usd / usd_per_h:.1f} minutes at "
            f"{usd_per_h:.2f} an hour, over before a pod has installed its packages"
        )
        way_out = f"set pod.max_usd={_LEAST_HOURS * usd_per_h:.2f} or more"
        yield Problem("pod.max_usd", what, way_out)


def _least_usd_per_h(config: Config) -> float | None:
    """Return what the pod costs on the cheapest GPU of the list; None when a price is not known."""
    pod = config.pod
    known = [gpus()[name].usd_per_h(pod.cloud) for name in pod.gpu if name in gpus()]
    prices = [price.low for price in known if price is not None]
    if not prices or len(prices) < len(pod.gpu):
        return None
    return min(prices) * pod.gpu_count * pod.node_count


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


POD_RULES = (known_gpus, torch_and_driver, torch_and_gpu, data_centers, image_for_cuda, time_enough)
