"""What a library raised, as a problem with the key it is about and a way out."""

import pytest

from podproof.harness.explain import explained
from podproof.runtime.errors import Problem
from tests.harness.conftest import script_of

PLAN = script_of("experiment=tiny_dpo", "adapter=lora").run.plan


@pytest.mark.parametrize(
    ("error", "message", "where"),
    [
        ("TypeError", "DPOConfig.__init__() got an unexpected keyword argument 'beta'", "method"),
        ("TypeError", "DPOConfig.__init__() got an unexpected keyword argument 'optim'", "trainer"),
        ("TypeError", "X.__init__() got an unexpected keyword argument 'y'", "trainer.extra"),
        ("ValueError", "loss_type must be one of ...", "method"),
        ("ValueError", "`max_length` is too short for lora_alpha", "method"),
        ("ValueError", "lora_alpha must be positive", "adapter"),
        ("ValueError", "set `dataloader_in_order` first", "trainer.extra"),
    ],
)
def test_the_key_is_named_with_the_section_that_it_is_set_in(
    error: str, message: str, where: str
) -> None:
    (problem,) = explained(error, message, PLAN)

    assert problem.where.rpartition(".")[0] == where
    assert problem.way_out


def test_a_package_that_is_not_installed_here_is_told_with_the_way_to_get_it() -> None:
    (problem,) = explained("ModuleNotFoundError", "No module named 'galore_torch'", PLAN)

    assert problem == Problem(
        "pod.requirements",
        "galore_torch is needed, and not installed here: No module named 'galore_torch'",
        "pip install galore_torch, to prove it here",
    )


def test_a_message_that_names_no_key_is_passed_on_in_one_line() -> None:
    (problem,) = explained("RuntimeError", "something\n  went wrong", PLAN)

    assert (problem.where, problem.what) == ("trainer", "RuntimeError: something went wrong")


@pytest.mark.parametrize(
    "message",
    [
        "The size of tensor a (4) must match the size of tensor b (8) at non-singleton dimension 1",
        "shape '[1, 12, 4, 0, 16]' is invalid for input of size 384",
        "mat1 and mat2 shapes cannot be multiplied (8x32 and 64x32)",
        "embed_dim must be divisible by num_heads (got `embed_dim`: 32 and `num_heads`: 12).",
    ],
)
def test_sizes_that_do_not_fit_are_those_of_the_config_that_the_model_is_drawn_from(
    message: str,
) -> None:
    (problem,) = explained("RuntimeError", message, PLAN)

    assert problem.where == "model.config"
    assert "sizes that fit each other" in problem.way_out
