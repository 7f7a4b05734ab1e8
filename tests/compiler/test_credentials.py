"""What looks like a credential is refused in the environment, and never shown."""

import pytest

from podproof.compiler.credentials import credential_in
from podproof.compiler.errors import BadConfig
from podproof.compiler.read import Request, read

# Put together here, so that no text of this repository looks like one.
TOKEN = "hf_" + 34 * "a"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ANY", TOKEN),
        ("ANY", "AKIA" + 16 * "B"),
        ("WANDB_API_KEY", 10 * "0a1b"),
        ("MY_PASSWORD", "hunter2hunter2"),
        ("DB", "postgres://me:" + "hidden@db.example.org/x"),
        ("URL", "https://c.example.org/?token=" + 12 * "x"),
    ],
)
def test_a_credential_is_known_by_its_shape_its_name_or_its_address(name: str, value: str) -> None:
    assert credential_in(name, value) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "false"),
        ("MAX_TOKEN", "512"),
        ("SORT_KEY", "published_at"),
        ("HF_TOKEN", ""),
        ("URL", "https://c.example.org/?page=2&tokens=3"),
        ("MODEL", "task-that-has-a-long-name-of-forty-letters-or-so"),
    ],
)
def test_what_is_none_is_none(name: str, value: str) -> None:
    assert credential_in(name, value) is None


@pytest.mark.parametrize("key", ["pod.env.A", "trainer.extra.hub_token", "pod.secrets.A"])
def test_a_refusal_does_not_repeat_it(key: str) -> None:
    with pytest.raises(BadConfig) as refused:
        read(Request(("experiment=tiny_sft", f"+{key}={TOKEN}")))

    assert key in str(refused.value)
    assert TOKEN not in str(refused.value)
