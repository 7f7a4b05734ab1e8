"""What an optimizer brings along; schedule_cases.py has what the rules refuse."""

from collections.abc import Mapping

from podproof.compiler.lower import lower
from podproof.compiler.schema import Config
from tests.compiler.conftest import changed


def test_an_optimizer_of_bitsandbytes_brings_its_package(configs: Mapping[str, Config]) -> None:
    usual = lower(configs["sft"]).requirements
    given = lower(changed(configs["sft"], {"trainer.optim": "paged_adamw_8bit"})).requirements

    assert [item.partition("==")[0] for item in set(given) - set(usual)] == ["bitsandbytes"]
