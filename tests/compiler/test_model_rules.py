"""What a refusal of a model's name says beyond the key; model_cases.py has what is refused."""

from collections.abc import Mapping

from podproof.compiler.model_rules import model_name
from podproof.compiler.schema import Config
from tests.compiler.conftest import changed


def test_a_page_is_answered_with_the_id_and_the_revision_it_shows(
    configs: Mapping[str, Config],
) -> None:
    page = {"model.name_or_path": "https://huggingface.co/me/a-7B/tree/v2"}

    (problem,) = model_name(changed(configs["rented_sft"], page))

    assert problem.way_out == "set model.name_or_path=me/a-7B model.revision=v2"
