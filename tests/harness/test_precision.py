"""All weights in half precision: told where nobody keeps what is rounded, and only there."""

import pytest

from podproof.harness.precision import rounded_away
from tests.harness.conftest import script_of

FULL = ("experiment=qwen3_8b_dpo", "pod.network_volume=abc", "adapter=none")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_that_round_small_steps_away_are_told(dtype: str) -> None:
    (notice,) = rounded_away(script_of(*FULL, f"model.dtype={dtype}").run)

    assert notice.startswith(f"weights of {dtype} round small steps away")


@pytest.mark.parametrize(
    "overrides",
    [
        (*FULL, "model.dtype=float32"),
        (*FULL, "pod.gpu_count=2", "trainer.fsdp=true"),
        (*FULL, "+trainer.extra.optim_args='bf16_stochastic_round=True'"),
        FULL[:2],
        ("experiment=tiny_sft", "model.dtype=bfloat16"),
    ],
    ids=str,
)
def test_nothing_is_told_where_what_is_rounded_is_kept(overrides: tuple[str, ...]) -> None:
    assert list(rounded_away(script_of(*overrides).run)) == []
