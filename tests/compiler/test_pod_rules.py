"""GPU, driver and torch: what RunPod has, and what the script's torch can run on."""

from collections.abc import Mapping
from typing import Any

import pytest

from podproof.compiler.gpus import gpus, nearest_gpu, priced_on
from podproof.compiler.ir import Cloud
from podproof.compiler.rules import violations
from podproof.compiler.schema import Config
from podproof.launcher.catalog import GPU_TYPES
from podproof.runtime.errors import Problem
from tests.compiler.conftest import changed

FLASH = {
    "model.attn_implementation": "flash_attention_2",
    "pod.requirements": {"flash-attn": "2.8.3"},
}
OLDER_TORCH = {"pod.requirements": {"Torch": "2.8.0", "flash-attn": "2.8.3"}}
OTHER_BUILD = {"pod.requirements": {"torch": "2.13.0+cu128"}}
V100, A100 = ("Tesla V100-SXM2-32GB",), ("NVIDIA A100 80GB PCIe",)


def found(config: Config, values: Mapping[str, Any]) -> list[Problem]:
    return list(violations(changed(config, values)))


@pytest.mark.parametrize(
    ("values", "key", "word"),
    [
        ({"pod.gpu": ("NVIDIA RTX 4090",)}, "pod.gpu", "did you mean NVIDIA GeForce RTX 4090?"),
        ({"pod.gpu": ("RTX A6000",)}, "pod.gpu", "did you mean NVIDIA RTX A6000?"),
        ({"pod.gpu": (*A100, "abacus")}, "pod.gpu", "gpus.md"),
        ({"pod.cuda_versions": ("12.8",)}, "pod.cuda_versions", "13.0"),
        ({"pod.cuda_versions": ("13.0", "12.4")}, "pod.cuda_versions", "12.4"),
        ({"pod.gpu": V100}, "pod.gpu", "older"),
        ({"pod.gpu": ("AMD Instinct MI300X OAM",)}, "pod.gpu", "no NVIDIA GPU"),
        ({"pod.gpu": V100, **FLASH, **OLDER_TORCH}, "pod.gpu", "Ampere"),
        ({"pod.cloud": Cloud.COMMUNITY}, "pod.cloud", "SECURE"),
        ({"pod.network_volume": "/workspace"}, "pod.network_volume", "console"),
        ({"pod.data_centers": ("eu-ro-1",)}, "pod.data_centers", "EU-RO-1"),
        ({"pod.image": "runpod/pytorch:2.6.0-py3.11-ROCm6.3"}, "pod.image", "CUDA"),
        ({"pod.max_hours": 0.1}, "pod.max_hours", "0.2"),
        ({"pod.gpu": A100, "pod.max_usd": 0.1}, "pod.max_usd", "minutes"),
    ],
    ids=str,
)
def test_what_cannot_run_is_refused(
    configs: Mapping[str, Config], values: Mapping[str, Any], key: str, word: str
) -> None:
    (problem,) = found(configs["rented_sft"], values)

    assert problem.where == key
    assert word in f"{problem.what} {problem.way_out}"


@pytest.mark.parametrize(
    "values",
    [
        {"pod.cuda_versions": ("13.0", "13.1")},
        {"pod.cuda_versions": ()},
        {"pod.cuda_versions": ("12.8",), **OLDER_TORCH},
        {"pod.cuda_versions": ("12.8",), **OTHER_BUILD},
        {"pod.gpu": V100, **OLDER_TORCH},
        {"pod.gpu": A100, **FLASH},
        {"pod.cloud": Cloud.ALL, "pod.data_centers": ("EU-RO-1", "US-TX-3")},
        {"pod.max_hours": 0.2},
        {"pod.gpu": A100, "pod.max_usd": 2.0},
    ],
    ids=str,
)
def test_what_can_run_is_not(configs: Mapping[str, Config], values: Mapping[str, Any]) -> None:
    assert found(configs["rented_sft"], values) == []


@pytest.mark.parametrize("gpu", [gpu for gpu in gpus() if "NVIDIA" in gpu])
def test_every_nvidia_gpu_of_the_table_may_be_named(
    configs: Mapping[str, Config], gpu: str
) -> None:
    assert found(configs["rented_sft"], {"pod.gpu": (gpu,)}) == []


def test_a_local_pod_may_name_any_gpu(configs: Mapping[str, Config]) -> None:
    assert found(configs["sft"], {"pod.gpu": ("mine",)}) == []


def test_the_emulator_rents_out_only_what_runpod_has_with_as_much_memory() -> None:
    for kind in GPU_TYPES:
        assert gpus()[kind.gpu_id].memory_gb == kind.memory_gb


def test_every_figure_of_the_table_is_positive_or_not_known() -> None:
    for gpu in gpus().values():
        figures = (gpu.bf16_tflops, gpu.bandwidth_gb_per_s, gpu.secure_usd_per_h)
        assert all(figure is None or figure > 0 for figure in figures)
        assert gpu.memory_gb > 0
    assert len(priced_on()) == len("2026-01-01")


def test_a_price_is_an_interval_of_the_clouds_asked_for() -> None:
    gpu = gpus()["NVIDIA L40S"]
    secure, community, either = (gpu.usd_per_h(cloud) for cloud in Cloud)

    assert secure is not None
    assert community is not None
    assert either is not None
    assert secure.low < 0.99 < secure.high
    assert (either.low, either.high) == (community.low, secure.high)
    assert gpus()["NVIDIA RTX A2000"].usd_per_h(Cloud.ALL) is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("A100", "NVIDIA A100-SXM4-80GB"),
        ("abacus", None),
        ("H100 SXM", "NVIDIA H100 80GB HBM3"),
        ("nvidia a40", "NVIDIA A40"),
        ("NVIDIA RTX 4090 Super Duper", "NVIDIA GeForce RTX 4090"),
    ],
)
def test_a_slip_is_answered_with_the_gpu_that_was_meant(typed: str, meant: str | None) -> None:
    assert nearest_gpu(typed) == meant
