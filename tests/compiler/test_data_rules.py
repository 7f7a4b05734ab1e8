"""A file has no split, configuration or revision: one that is given is a slip, and refused."""

from collections.abc import Mapping

import pytest

from podproof.compiler.data_rules import hub_only
from podproof.compiler.schema import Config
from podproof.runtime.plan import DataSource
from tests.compiler.conftest import changed

GIVEN = [("split", "trian"), ("name", "default"), ("revision", "main")]


@pytest.mark.parametrize(("key", "value"), GIVEN)
def test_what_only_the_hub_has_is_refused_of_a_file(
    configs: Mapping[str, Config], key: str, value: str
) -> None:
    (problem,) = hub_only(changed(configs["sft"], {f"data.{key}": value}))

    assert problem.where == f"data.{key}"
    assert repr(value) in problem.what
    assert f"set data.{key}=" in problem.way_out


@pytest.mark.parametrize(("key", "value"), GIVEN)
def test_it_is_taken_of_the_hub(configs: Mapping[str, Config], key: str, value: str) -> None:
    config = changed(configs["sft"], {f"data.{key}": value, "data.source": DataSource.HUB})

    assert list(hub_only(config)) == []


def test_the_split_that_is_the_default_says_nothing_of_a_file(
    configs: Mapping[str, Config],
) -> None:
    assert list(hub_only(changed(configs["sft"], {"data.split": "train"}))) == []
