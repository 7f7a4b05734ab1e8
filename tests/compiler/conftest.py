"""What the compiler's tests share: typed configs, and the same with one value changed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from podproof.compiler.errors import BadConfig
from podproof.compiler.ir import PodScript, Run
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.schema import Config, register_defaults
from podproof.compiler.script import compile_run
from podproof.runtime.errors import Problem

ROOT = Path(__file__).parents[2]
EXPERIMENTS = tuple(sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")))
RUNPOD_EXPERIMENTS = (
    "qwen3_8b_full_sft",
    "llama3_8b_qlora_sft",
    "mistral_7b_orpo",
    "qwen3_8b_dpo",
)


def read_config(*overrides: str, config_dir: Path | None = None) -> Config:
    return read(Request(overrides, config_dir))


def refusal(*overrides: str, config_dir: Path | None = None) -> dict[str, Problem]:
    """Return the problems of a config that must be refused, by key."""
    with pytest.raises(BadConfig) as refused:
        read(Request(overrides, config_dir))
    return {problem.where: problem for problem in refused.value.problems}


def changed(config: Config, values: Mapping[str, object]) -> Config:
    """Return the config with the values at some dotted keys replaced."""
    for key, value in values.items():
        config = _replaced(config, key.split("."), value)
    return config


def _replaced(section: Any, path: list[str], value: object) -> Any:
    head, *rest = path
    item = _replaced(getattr(section, head), rest, value) if rest else value
    return replace(section, **{head: item})


def composed_config(*overrides: str) -> DictConfig:
    """Return what Hydra composes, before podproof has read it."""
    register_defaults()
    with initialize_config_module("podproof.conf", version_base="1.3"):
        return compose("config", overrides=list(overrides))


def with_value(composed: DictConfig, key: str, value: object) -> DictConfig:
    """Return a copy with one value put at a dotted key, as YAML would have put it there."""
    return with_values(composed, {key: value})


def with_values(composed: DictConfig, values: Mapping[str, object]) -> DictConfig:
    """Return a copy with values put at dotted keys, as YAML would have put them there."""
    copy = composed.copy()
    for key, value in values.items():
        OmegaConf.update(copy, key, value, merge=False, force_add=True)
    return copy


@pytest.fixture(scope="session")
def configs() -> Mapping[str, Config]:
    """One small config of each method, and one of each method for a rented pod, the last named."""
    local = {name: read_config(f"experiment=tiny_{name}") for name in ("sft", "dpo", "orpo")}
    rented = {
        name.rpartition("_")[2]: read_config(f"experiment={name}", "pod.network_volume=abc")
        for name in RUNPOD_EXPERIMENTS
    }
    return {**local, **{f"rented_{method}": config for method, config in rented.items()}}


@pytest.fixture(scope="session")
def composed() -> DictConfig:
    return composed_config("experiment=tiny_sft")


@pytest.fixture(scope="session")
def run(configs: Mapping[str, Config]) -> Run:
    return lower(configs["sft"])


@pytest.fixture(scope="session")
def script(run: Run) -> PodScript:
    return compile_run(run)
