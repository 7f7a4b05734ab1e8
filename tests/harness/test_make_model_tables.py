"""The tables of models are read from the files of a wheel, without importing them."""

import zipfile
from pathlib import Path

import pytest

from podproof.harness.make_model_tables import described_models

MAPPINGS = """
CONFIG_MAPPING_NAMES = OrderedDict([("tiny", "TinyConfig"), ("seer", "SeerConfig")])
"""
MORE_MAPPINGS = """
CONFIG_MAPPING_NAMES.update({"picture": "PictureConfig"})
CONFIG_MAPPING_NAMES = OrderedDict(**{"tiny-old": "TinyConfig"}, **CONFIG_MAPPING_NAMES)
"""
CAUSAL = """
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = OrderedDict(
    [("tiny", "TinyForCausalLM"), ("seer", "SeerLMHeadModel")]
)
"""
BASE = """
class PreTrainedConfig:
    attribute_map: ClassVar[dict[str, str]] = {}
    dtype: str | None = None

    def __post_init__(self, **kwargs):
        self.made = kwargs.pop("torch_dtype", None)
"""
TINY = """
class TinyConfig(PreTrainedConfig):
    attribute_map = {"hidden_size": "n_embd"}
    n_embd: int = 8
"""
SEER = """
class SeerConfig(TinyConfig):
    def __init__(self, depth=2, **kwargs):
        self._hidden = kwargs.get("old_name")
"""


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "transformers-9.9.9-py3-none-any.whl"
    models = "transformers/models"
    with zipfile.ZipFile(path, "w") as files:
        files.writestr(f"{models}/auto/auto_mappings.py", MAPPINGS)
        files.writestr(f"{models}/auto/configuration_auto.py", MORE_MAPPINGS)
        files.writestr(f"{models}/auto/modeling_auto.py", CAUSAL)
        files.writestr("transformers/configuration_utils.py", BASE)
        files.writestr("transformers/modeling_utils.py", '_global_mapping = {"sdpa": forward}')
        files.writestr(f"{models}/tiny/configuration_tiny.py", TINY)
        files.writestr(f"{models}/seer/configuration_seer.py", SEER)
        files.writestr(
            f"{models}/seer/modeling_seer.py",
            'class SeerLMHeadModel:\n    advice = "add `is_decoder=True.`"\n',
        )
    return path


def test_types_keys_and_attention_are_read(wheel: Path) -> None:
    table = described_models(wheel)

    assert table["no_causal_model"] == ["picture", "tiny-old"]
    assert table["config_keys"]["tiny"] == ["hidden_size", "n_embd"]
    assert table["config_keys"]["seer"] == ["depth", "hidden_size", "n_embd", "old_name"]
    assert {"dtype", "torch_dtype"} <= set(table["common_keys"])
    assert table["attention"] == ["eager", "sdpa"]


def test_other_names_and_what_sees_the_future_are_read(wheel: Path) -> None:
    table = described_models(wheel)

    assert table["other_names"] == {"n_embd": ["hidden_size"]}
    assert table["sees_what_follows"] == ["seer"]
