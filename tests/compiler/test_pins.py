"""Pins: one version of each package, wherever it is written down."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from podproof.compiler.pins import (
    BITSANDBYTES_PINS,
    DEEPSPEED_PINS,
    GGUF_PINS,
    HUB_PINS,
    INTEGRATION_PINS,
    JSON_SCHEMA_PINS,
    POD_PINS,
)
from tests.compiler.conftest import ROOT

CONSTRAINTS: dict[str, str] = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"(?m)^([A-Za-z0-9._-]+)==(\S+)$", (ROOT / "constraints.txt").read_text()
    )
}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def exact(requirements: list[str]) -> dict[str, str]:
    parsed = [Requirement(text) for text in requirements]
    return {canonicalize_name(item.name): str(item.specifier).lstrip("=") for item in parsed}


WANTED = {**GGUF_PINS, **HUB_PINS, **JSON_SCHEMA_PINS, **INTEGRATION_PINS["tensorboard"]}


@pytest.mark.parametrize(("package", "version"), {**POD_PINS, **WANTED}.items())
def test_what_the_tests_run_with_is_what_a_pod_runs_with(package: str, version: str) -> None:
    assert CONSTRAINTS[package] == version


def test_the_extra_for_pods_names_the_same_versions() -> None:
    named = exact(EXTRAS["pod"])

    assert named == {package: POD_PINS[package] for package in named}


def test_the_extra_for_the_examples_names_the_same_versions() -> None:
    assert exact(EXTRAS["examples"]).items() >= GGUF_PINS.items()


def test_no_package_is_pinned_twice() -> None:
    wanted = [BITSANDBYTES_PINS, GGUF_PINS, HUB_PINS, DEEPSPEED_PINS, JSON_SCHEMA_PINS]
    tables = [POD_PINS, *wanted, *INTEGRATION_PINS.values()]
    names = [name for table in tables for name in table]

    assert len(names) == len(set(names))


def test_pins_are_written_under_their_canonical_names() -> None:
    wanted = [BITSANDBYTES_PINS, GGUF_PINS, HUB_PINS, DEEPSPEED_PINS, JSON_SCHEMA_PINS]
    tables = [POD_PINS, *wanted, *INTEGRATION_PINS.values()]
    names = [name for table in tables for name in table]

    assert names == [canonicalize_name(name) for name in names]
