"""Reading data: every file is found, read and looked at, and every problem named at once."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from podproof.runtime.data import file_rows, find_data_file, read_data
from podproof.runtime.errors import BadData, Problem
from podproof.runtime.plan import DataPlan, DataSource, EvalPlan, MethodName, RowFormat
from podproof.runtime.rows import BadRow, Row

TEXTS = tuple({"text": f"line {number} of a text"} for number in range(20))
PAIR = {"prompt": "Say yes.", "chosen": "Yes.", "rejected": "No."}


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_sft(plan: DataPlan, folder: Path) -> Any:
    return read_data(plan, MethodName.SFT, (folder,))


def rows_of(content: bytes, source: DataSource, name: str) -> tuple[list[Row], list[Problem]]:
    """Return the rows of a file, and the problems of what is none."""
    read = list(file_rows(io.BytesIO(content), source, name))
    rows = [row for row in read if isinstance(row, Row)]
    return rows, [item for row in read if isinstance(row, BadRow) for item in row.problems]


def test_rows_come_in_the_order_of_the_file_with_their_line(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", TEXTS)

    rows = read_sft(DataPlan(path="rows.jsonl"), tmp_path)

    assert [row.columns for row in rows.train] == list(TEXTS)
    assert rows.train[4].where == "rows.jsonl:5"
    assert rows.row_format is RowFormat.TEXT


def test_a_relative_path_is_looked_up_in_the_first_root_that_has_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    write_jsonl(second / "rows.jsonl", TEXTS)

    found = find_data_file("rows.jsonl", (first, second))

    assert found == second / "rows.jsonl"


def test_an_absolute_path_needs_no_root(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", TEXTS)

    assert find_data_file(str(path), ()) == path


def test_a_missing_file_is_refused_with_the_folders_looked_in(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=f"looked in {tmp_path}") as refusal:
        read_sft(DataPlan(path="absent.jsonl"), tmp_path)

    assert refusal.value.problems[0].where == "absent.jsonl"
    assert refusal.value.problems[0].way_out


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [])

    with pytest.raises(BadData, match="holds no rows"):
        read_sft(DataPlan(path="rows.jsonl"), tmp_path)


def test_a_truncated_row_is_refused_by_line_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "whole"}\n{"text": "cut o', encoding="utf-8")

    with pytest.raises(BadData, match=r"rows\.jsonl:2: not JSON"):
        read_sft(DataPlan(path="rows.jsonl"), tmp_path)


def test_broken_lines_and_bad_rows_of_both_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n{oops\n{"text": ""}\n', encoding="utf-8")
    write_jsonl(tmp_path / "eval.jsonl", [{"text": "b"}, {"text": None}])
    plan = DataPlan(path="train.jsonl", eval=EvalPlan(path="eval.jsonl"))

    with pytest.raises(BadData) as refusal:
        read_sft(plan, tmp_path)

    places = [problem.where for problem in refusal.value.problems]
    assert {"train.jsonl:2", "train.jsonl:3", "eval.jsonl:2"} <= set(places)


def test_only_the_first_problems_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [*TEXTS, *({"text": " "} for _ in range(134))])

    with pytest.raises(BadData) as refusal:
        read_sft(DataPlan(path="rows.jsonl"), tmp_path)

    assert len(refusal.value.problems) == 6
    closing = "134 of 154 rows cannot be trained on (134 x text is empty)"
    assert refusal.value.problems[-1].what == closing


def test_bad_rows_within_the_share_are_dropped_and_told(tmp_path: Path) -> None:
    rows = [*TEXTS[:3], {"text": ""}, *TEXTS[3:19]]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    path.write_text(path.read_text(encoding="utf-8") + "{broken\n", encoding="utf-8")

    read = read_sft(DataPlan(path="rows.jsonl", max_bad_fraction=0.1), tmp_path)

    assert [row.columns for row in read.train] == list(TEXTS[:19])
    assert len(read.notices) == 1
    assert "2 of 21 rows cannot be trained on" in read.notices[0]


def test_bad_rows_beyond_the_share_are_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [*TEXTS[:8], {"text": ""}, {"text": None}])

    with pytest.raises(BadData, match="2 of 10 rows"):
        read_sft(DataPlan(path="rows.jsonl", max_bad_fraction=0.19), tmp_path)


def test_the_share_is_asked_of_each_file_by_itself(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", TEXTS)
    write_jsonl(tmp_path / "eval.jsonl", [{"text": "a"}, {"text": " "}])
    plan = DataPlan(path="train.jsonl", eval=EvalPlan(path="eval.jsonl"), max_bad_fraction=0.1)

    with pytest.raises(BadData, match=r"eval\.jsonl: 1 of 2 rows"):
        read_sft(plan, tmp_path)


def test_dropped_rows_are_gone_before_rows_are_cut_and_parted(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"text": ""}, *TEXTS])
    share = EvalPlan(fraction=0.2)
    plan = DataPlan(
        path="rows.jsonl", eval=share, max_rows=10, shuffle_seed=3, max_bad_fraction=0.1
    )

    read = read_sft(plan, tmp_path)
    write_jsonl(tmp_path / "rows.jsonl", TEXTS)
    clean = read_sft(plan, tmp_path)

    assert [row.columns for row in read.train] == [row.columns for row in clean.train]
    assert [row.columns for row in read.eval] == [row.columns for row in clean.eval]


def test_wrong_columns_are_one_problem_that_names_them(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"question": "?", "answer": "!"}] * 50)

    with pytest.raises(BadData, match="the columns are question, answer") as refusal:
        read_sft(DataPlan(path="rows.jsonl"), tmp_path)

    assert len(refusal.value.problems) == 1
    assert "data.columns" in refusal.value.problems[0].way_out


def test_columns_are_renamed_to_trls_names(tmp_path: Path) -> None:
    rows = [{"question": f"q{number}", "answer": "a"} for number in range(3)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    columns = {"prompt": "question", "completion": "answer"}

    read = read_sft(DataPlan(path="rows.jsonl", columns=columns), tmp_path)

    assert read.train[1].columns == {"prompt": "q1", "completion": "a"}


def test_a_renaming_of_a_column_that_is_not_there_suggests_the_near_one(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"question": "q", "text": "t"}])
    plan = DataPlan(path="rows.jsonl", columns={"prompt": "qestion"})

    with pytest.raises(BadData, match="did you mean 'question'"):
        read_sft(plan, tmp_path)


def test_columns_the_method_does_not_use_are_dropped(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    write_jsonl(tmp_path / "rows.jsonl", [{"messages": messages, "prompt": "q", "id": 7}])

    rows = read_sft(DataPlan(path="rows.jsonl"), tmp_path)

    assert rows.train[0].columns == {"messages": messages}


def test_preference_rows_do_not_serve_sft(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [PAIR])

    with pytest.raises(BadData, match="sft needs messages, or prompt \\+ completion, or text"):
        read_sft(DataPlan(path="rows.jsonl"), tmp_path)


def test_a_format_the_method_cannot_train_on_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", TEXTS)
    plan = DataPlan(path="rows.jsonl", format=RowFormat.TEXT)

    with pytest.raises(BadData, match="dpo cannot train on text rows"):
        read_data(plan, MethodName.DPO, (tmp_path,))


def test_a_share_is_parted_off_for_evaluation(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", TEXTS)

    rows = read_sft(DataPlan(path="rows.jsonl", eval=EvalPlan(fraction=0.25)), tmp_path)

    assert (len(rows.train), len(rows.eval)) == (15, 5)
    assert not {row.where for row in rows.train} & {row.where for row in rows.eval}


def test_rows_are_cut_before_a_share_is_parted_off(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", TEXTS)
    plan = DataPlan(path="rows.jsonl", eval=EvalPlan(fraction=0.5), max_rows=10, max_eval_rows=2)

    rows = read_sft(plan, tmp_path)

    assert (len(rows.train), len(rows.eval)) == (8, 2)


def test_an_eval_file_is_read_whole_or_cut_by_max_eval_rows(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", TEXTS)
    write_jsonl(tmp_path / "eval.jsonl", TEXTS[:9])
    plan = DataPlan(path="train.jsonl", eval=EvalPlan(path="eval.jsonl"), max_eval_rows=4)

    rows = read_sft(plan, tmp_path)

    assert (len(rows.train), len(rows.eval)) == (20, 4)
    assert rows.eval[0].where == "eval.jsonl:1"


def test_a_file_has_no_splits_so_eval_split_gives_no_rows(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", TEXTS)

    rows = read_sft(DataPlan(path="rows.jsonl", eval=EvalPlan(split="test")), tmp_path)

    assert rows.eval == ()


def test_one_row_cannot_be_parted(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", TEXTS[:1])

    with pytest.raises(BadData, match="one row cannot be parted"):
        read_sft(DataPlan(path="rows.jsonl", eval=EvalPlan(fraction=0.1)), tmp_path)


def test_the_same_seed_draws_the_same_rows_in_every_python(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", TEXTS)

    rows = read_sft(DataPlan(path="rows.jsonl", shuffle_seed=7, max_rows=5), tmp_path)

    assert [int(row.where.split(":")[1]) for row in rows.train] == [9, 7, 11, 4, 12]


def test_blank_lines_and_a_byte_order_mark_are_passed_over() -> None:
    content = b"\xef\xbb\xbf" + b'{"text": "a"}\n\n{"text": "b"}'

    rows, problems = rows_of(content, DataSource.JSONL, "rows")

    assert [row.where for row in rows] == ["rows:1", "rows:3"]
    assert problems == []


def test_a_line_that_is_no_object_is_a_problem() -> None:
    _, problems = rows_of(b"[1, 2]\n", DataSource.JSONL, "rows")

    assert str(problems[0]) == "rows:1: must be a JSON object, got list"


def test_a_line_that_is_not_utf8_is_a_problem() -> None:
    _, problems = rows_of(b'{"text": "caf\xe9"}\n', DataSource.JSONL, "rows")

    assert "utf-8" in problems[0].what


def test_a_file_is_read_as_its_rows_are_asked_for() -> None:
    file = io.BytesIO(b'{"text": "a"}\n' * 3)

    next(file_rows(file, DataSource.JSONL, "rows"))

    assert file.tell() == len(b'{"text": "a"}\n')


def test_json_is_a_list_of_objects_counted_from_one() -> None:
    rows, problems = rows_of(b'[{"text": "a"}, 5]', DataSource.JSON, "rows.json")

    assert [row.where for row in rows] == ["rows.json row 1"]
    assert [problem.where for problem in problems] == ["rows.json row 2"]


def test_json_that_is_no_list_points_to_json_lines() -> None:
    with pytest.raises(BadData) as refusal:
        rows_of(b'{"text": "a"}', DataSource.JSON, "rows.json")

    assert "jsonl" in refusal.value.problems[0].way_out


def test_broken_json_is_refused() -> None:
    with pytest.raises(BadData, match="not JSON"):
        rows_of(b'[{"text": ', DataSource.JSON, "rows.json")


def test_a_json_file_is_read_by_its_source(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(list(TEXTS)), encoding="utf-8")

    rows = read_sft(DataPlan(path="rows.json", source=DataSource.JSON), tmp_path)

    assert len(rows.train) == 20


def test_a_csv_row_is_named_by_the_line_it_begins_on() -> None:
    rows, _ = rows_of(b'text\n"two\nlines"\none line\n', DataSource.CSV, "rows.csv")

    assert [row.where for row in rows] == ["rows.csv:2", "rows.csv:4"]
    assert rows[0].columns == {"text": "two\nlines"}


def test_a_csv_row_with_too_many_cells_is_a_problem() -> None:
    _, problems = rows_of(b"text\na,b\n", DataSource.CSV, "rows.csv")

    assert str(problems[0]) == "rows.csv:2: has more cells than the header"


def test_a_csv_cell_beyond_the_limit_of_the_reader_is_refused_whatever_may_be_dropped() -> None:
    # What follows such a cell cannot be read, so nobody knows how many rows are lost.
    with pytest.raises(BadData, match=r"rows\.csv:2: not CSV"):
        rows_of(b"text\n" + b"a" * 200_000, DataSource.CSV, "rows.csv")


def test_a_short_csv_row_lacks_its_last_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\nq,a\nonly a question\n", encoding="utf-8")

    with pytest.raises(BadData, match=r"rows\.csv:3: completion is missing"):
        read_sft(DataPlan(path="rows.csv", source=DataSource.CSV), tmp_path)


def test_parquet_is_read_through_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(list(TEXTS)).to_parquet(tmp_path / "rows.parquet")

    rows = read_sft(DataPlan(path="rows.parquet", source=DataSource.PARQUET), tmp_path)

    assert rows.train[2].where == "rows.parquet row 3"
    assert rows.train[2].columns == TEXTS[2]


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "rows.parquet").write_text("text", encoding="utf-8")

    with pytest.raises(BadData, match=r"rows\.parquet: not parquet"):
        read_sft(DataPlan(path="rows.parquet", source=DataSource.PARQUET), tmp_path)


READ_A_SPLIT = """
import sys
from podproof.runtime.data import read_data
from podproof.runtime.errors import BadData
from podproof.runtime.plan import DataPlan, DataSource, EvalPlan, MethodName

plan = DataPlan(DataSource.HUB, path=sys.argv[1], eval=EvalPlan(split=sys.argv[2]))
try:
    rows = read_data(plan, MethodName.SFT, ())
except BadData as error:
    sys.exit(str(error))
print(len(rows.train), len(rows.eval), rows.eval[0].columns["text"])
"""


def read_splits_in_a_process(folder: Path, split: str) -> subprocess.CompletedProcess[str]:
    """Read a dataset as from the hub, in a process whose cache is in the folder too."""
    repository = folder / "repository"
    repository.mkdir()
    write_jsonl(repository / "train.jsonl", TEXTS)
    write_jsonl(repository / "test.jsonl", TEXTS[:3])
    command = [sys.executable, "-c", READ_A_SPLIT, str(repository), split]
    environment = {**os.environ, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_splits_of_a_dataset_are_read_through_datasets(tmp_path: Path) -> None:
    pytest.importorskip("datasets")

    result = read_splits_in_a_process(tmp_path, "test")

    assert result.stdout == "20 3 line 0 of a text\n", result.stderr


def test_a_split_that_is_not_there_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("datasets")

    result = read_splits_in_a_process(tmp_path, "tset")

    assert "[tset]: not loaded" in result.stderr
    assert "way out: check data.path, data.name, data.split" in result.stderr
