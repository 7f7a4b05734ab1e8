"""The example data: what the script makes, and that the files in the repository are that."""

import difflib
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from podproof.runtime.data import read_data
from podproof.runtime.plan import DataPlan, EvalPlan, MethodName
from podproof.runtime.rows import Rows, row_notices

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "make_stdlib_data.py"
FILES = ("README.md", "preference.jsonl", "sft.jsonl")
MADE_HERE = f"made by CPython {platform.python_version()} on {platform.system()}"
is_comparable = MADE_HERE in (EXAMPLES / "data" / "README.md").read_text(encoding="utf-8")


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def read_example(name: str, method: MethodName) -> Rows:
    plan = DataPlan(path=name, eval=EvalPlan(fraction=0.1))
    return read_data(plan, method, (EXAMPLES / "data",))


def rows_of(name: str) -> list[dict[str, Any]]:
    lines = (EXAMPLES / "data" / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.skipif(not is_comparable, reason="another Python has other documentation")
def test_the_files_are_what_this_python_makes() -> None:
    result = run_script("--check")

    assert (result.returncode, result.stderr) == (0, "")


def test_a_changed_file_is_told_by_check(tmp_path: Path) -> None:
    run_script("--out", tmp_path)
    (tmp_path / "sft.jsonl").write_text("{}\n", encoding="utf-8")

    result = run_script("--out", tmp_path, "--check")

    assert result.returncode == 1
    assert "sft.jsonl differs" in result.stderr


def test_files_of_another_python_are_not_compared(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("made by CPython 2.7.18 on Linux", encoding="utf-8")

    result = run_script("--out", tmp_path, "--check")

    assert result.returncode == 2
    assert "not comparable" in result.stderr


def test_check_needs_to_know_which_python_made_the_files(tmp_path: Path) -> None:
    result = run_script("--out", tmp_path, "--check")

    assert result.returncode == 2
    assert "README.md is missing" in result.stderr


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    (tmp_path / "sft.jsonl").write_text("mine", encoding="utf-8")

    refused = run_script("--out", tmp_path)
    kept = (tmp_path / "sft.jsonl").read_text(encoding="utf-8")
    forced = run_script("--out", tmp_path, "--force")

    assert (refused.returncode, kept, forced.returncode) == (2, "mine", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == list(FILES)


def test_help_shows_examples() -> None:
    assert "--check            are the files" in run_script("--help").stdout


@pytest.mark.parametrize("method", [MethodName.DPO, MethodName.ORPO])
def test_the_pairs_serve_both_preference_methods(method: MethodName) -> None:
    rows = read_example("preference.jsonl", method)

    assert (len(rows.train), len(rows.eval)) == (360, 40)
    assert row_notices(rows) == ()


def test_the_conversations_serve_sft() -> None:
    rows = read_example("sft.jsonl", MethodName.SFT)

    assert (len(rows.train), len(rows.eval)) == (450, 50)
    assert row_notices(rows) == ()


def test_every_question_and_every_right_answer_stands_once() -> None:
    pairs = rows_of("preference.jsonl")
    talks = rows_of("sft.jsonl")

    assert len({row["prompt"][0]["content"] for row in pairs}) == len(pairs)
    assert len({row["chosen"][0]["content"] for row in pairs}) == len(pairs)
    assert len({row["messages"][1]["content"] for row in talks}) == len(talks)


def test_no_rejected_answer_says_nearly_what_the_right_one_says() -> None:
    pairs = [(row["chosen"][0], row["rejected"][0]) for row in rows_of("preference.jsonl")]

    likeness = [
        difflib.SequenceMatcher(None, right["content"], wrong["content"], autojunk=False).ratio()
        for right, wrong in pairs
    ]

    assert max(likeness) <= 0.7


def test_answers_are_neither_short_nor_long() -> None:
    answers = [row["messages"][1]["content"] for row in rows_of("sft.jsonl")]
    answers += [row["rejected"][0]["content"] for row in rows_of("preference.jsonl")]

    assert min(map(len, answers)) >= 40
    assert max(map(len, answers)) <= 400


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_small_enough_to_keep_beside_the_code(name: str) -> None:
    assert (EXAMPLES / "data" / name).stat().st_size < 300_000


def test_the_licence_of_the_texts_is_named() -> None:
    readme = (EXAMPLES / "data" / "README.md").read_text(encoding="utf-8")

    assert "PSF License Agreement" in readme
