"""The GPU types that the emulator rents out: names as RunPod has them, prices only plausible."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuType:
    """One kind of GPU; memory in GB, prices in USD per hour and GPU.

    The prices are round numbers of the right size, good for arithmetic and for nothing else.
    """

    gpu_id: str
    display_name: str
    memory_gb: int
    secure_usd_per_h: float
    community_usd_per_h: float


GPU_TYPES: tuple[GpuType, ...] = (
    GpuType("NVIDIA GeForce RTX 4090", "RTX 4090", 24, 0.70, 0.40),
    GpuType("NVIDIA GeForce RTX 5090", "RTX 5090", 32, 0.95, 0.70),
    GpuType("NVIDIA A40", "A40", 48, 0.45, 0.40),
    GpuType("NVIDIA RTX A6000", "RTX A6000", 48, 0.55, 0.40),
    GpuType("NVIDIA L40S", "L40S", 48, 0.95, 0.80),
    GpuType("NVIDIA A100 80GB PCIe", "A100 PCIe", 80, 1.70, 1.20),
    GpuType("NVIDIA A100-SXM4-80GB", "A100 SXM", 80, 1.80, 1.40),
    GpuType("NVIDIA H100 PCIe", "H100 PCIe", 80, 2.50, 2.00),
    GpuType("NVIDIA H100 80GB HBM3", "H100 SXM", 80, 3.00, 2.70),
    GpuType("NVIDIA H200", "H200 SXM", 141, 4.00, 3.60),
    GpuType("NVIDIA B200", "B200", 180, 6.00, 5.20),
)

CPU_USD_PER_H = 0.05
MAX_GPUS_PER_POD = 8


def gpu_type(gpu_id: str) -> GpuType | None:
    """Return the GPU type of that id, or None."""
    return next((gpu for gpu in GPU_TYPES if gpu.gpu_id == gpu_id), None)


def pod_usd_per_h(gpu_id: str | None, gpu_count: int, *, is_secure: bool) -> float:
    """Return what a pod costs per hour; an unknown GPU id raises KeyError.

    >>> pod_usd_per_h("NVIDIA A40", 2, is_secure=True)
    0.9
    """
    if gpu_id is None:
        return CPU_USD_PER_H
    gpu = gpu_type(gpu_id)
    if gpu is None:
        raise KeyError(gpu_id)
    return gpu_count * (gpu.secure_usd_per_h if is_secure else gpu.community_usd_per_h)
