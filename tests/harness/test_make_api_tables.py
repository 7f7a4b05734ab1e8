"""The API tables are read from the files of a wheel, whatever this machine could install."""

import zipfile
from pathlib import Path

import pytest

from podproof.harness.make_api_tables import described

CONFIG = """
from dataclasses import dataclass, field


@dataclass
class _BaseConfig(TrainingArguments):
    kind: ClassVar[str] = "base"
    logging_steps: float = field(default=10, metadata={"help": "often"})


@dataclass
class SFTConfig(_BaseConfig):
    max_length: int | None = 1024
    extra: dict = field(default_factory=dict)
    output_dir: str
"""
TRAINER = """
class SFTTrainer(_BaseTrainer):
    def __init__(self, model, args=None, *, peft_config=None, callbacks, **others):
        pass
"""
METADATA = """\
Metadata-Version: 2.1
Name: trl
Version: 9.9.9
Requires-Dist: transformers>=5.0
Requires-Dist: torch>=2.6; extra == "torch"
Requires-Dist: pytest>=8; extra == "dev"
Requires-Dist: rich
"""
INIT = """
from .first import alpha, beta as gamma

_import_structure = {"trainer": ["SFTConfig", "SFTTrainer", "not a name"]}
_import_structure["late"] = ["Late"]

def made_here(): ...
"""


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "trl-9.9.9-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as files:
        files.writestr("trl/__init__.py", INIT)
        files.writestr("trl-9.9.9.dist-info/METADATA", METADATA)
        files.writestr("trl/trainer/base_config.py", CONFIG)
        files.writestr("trl/trainer/sft_config.py", CONFIG)
        files.writestr("trl/trainer/sft_trainer.py", TRAINER)
    return path


def test_fields_of_a_dataclass_come_with_the_text_of_their_defaults(wheel: Path) -> None:
    table = described(wheel)["classes"]["SFTConfig"]

    assert table == {
        "bases": ["_BaseConfig"],
        "arguments": {"max_length": "1024", "extra": "dict", "output_dir": "required"},
        "types": {"max_length": "int | None", "extra": "dict", "output_dir": "str"},
        "takes_others": False,
    }


def test_a_field_function_gives_its_default_and_a_class_variable_is_no_argument(
    wheel: Path,
) -> None:
    assert described(wheel)["classes"]["_BaseConfig"]["arguments"] == {"logging_steps": "10"}


def test_the_arguments_of_an_init_come_in_their_order(wheel: Path) -> None:
    table = described(wheel)["classes"]["SFTTrainer"]

    assert list(table["arguments"].items()) == [
        ("model", "required"),
        ("args", "None"),
        ("peft_config", "None"),
        ("callbacks", "required"),
    ]
    assert table["takes_others"] is True


def test_names_imported_listed_lazily_or_defined_are_exports(wheel: Path) -> None:
    table = described(wheel)

    assert (table["package"], table["version"]) == ("trl", "9.9.9")
    assert table["exports"]["trl"] == [
        "Late",
        "SFTConfig",
        "SFTTrainer",
        "alpha",
        "gamma",
        "made_here",
    ]
    assert table["exports"]["trl.experimental.orpo"] == []


def test_what_a_package_needs_is_told_with_torch_and_without_other_extras(wheel: Path) -> None:
    assert described(wheel)["requires"] == {"torch": ">=2.6", "transformers": ">=5.0"}


def test_a_package_that_is_not_described_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pandas-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as files:
        files.writestr("pandas/__init__.py", "")

    with pytest.raises(KeyError, match="pandas"):
        described(path)
