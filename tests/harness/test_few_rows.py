"""A few rows: real ones where there are any, in the format of their file; made ones elsewhere."""

import csv
import json
from pathlib import Path

import pytest

from podproof.harness.few_rows import EVAL_ROWS, TRAIN_ROWS, few_rows, made_rows
from podproof.runtime.data import read_data
from podproof.runtime.plan import DataSource, MethodName, RowFormat
from tests.harness.conftest import ROOTS, script_of

ROWS = [{"question": f"q{'?' * (50 - index)}", "answer": f"a{index}"} for index in range(50)]
RENAMED = ("data.columns={prompt: question, completion: answer}", "data.format=auto")


@pytest.mark.parametrize("source", ["jsonl", "json", "csv"])
def test_the_shortest_of_the_first_rows_keep_their_format_and_their_columns(
    source: str, tmp_path: Path
) -> None:
    path = tmp_path / f"rows.{source}"
    with path.open("w", newline="") as file:
        if source == "csv":
            csv.writer(file).writerows([["question", "answer"], *(row.values() for row in ROWS)])
        elif source == "json":
            json.dump(ROWS, file)
        else:
            file.writelines(json.dumps(row) + "\n" for row in ROWS)
    overrides = (f"data.source={source}", f"data.path={path}", *RENAMED)
    plan = script_of("experiment=tiny_sft", *overrides).run.plan
    place = tmp_path / "few"
    place.mkdir()

    data, note = few_rows(plan, (), place)

    rows = read_data(data, plan.method, ())
    assert note == f"16 rows of rows.{source}"
    assert data.source is DataSource(source)
    assert len(rows.train) + len(rows.eval) == TRAIN_ROWS
    assert {row.columns["completion"] for row in (*rows.train, *rows.eval)} == {
        f"a{index}" for index in range(34, 50)
    }


def test_evaluation_rows_of_a_file_of_their_own_are_cut_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    evaluation = (f"data.eval.path={path}", "data.eval.fraction=null")
    plan = script_of("experiment=tiny_sft", f"data.path={path}", *RENAMED, *evaluation).run.plan
    place = tmp_path / "few"
    place.mkdir()

    data, _ = few_rows(plan, (), place)

    rows = read_data(data, plan.method, ())
    assert (len(rows.train), len(rows.eval)) == (TRAIN_ROWS, EVAL_ROWS)


@pytest.mark.parametrize("row_format", ["messages", "text", "prompt_completion"])
def test_made_rows_have_the_format_and_the_column_names_of_the_plan(
    row_format: str, tmp_path: Path
) -> None:
    plan = script_of("experiment=tiny_sft", f"data.format={row_format}").run.plan

    rows = read_data(made_rows(plan, tmp_path), plan.method, ())

    assert rows.row_format is RowFormat(row_format)
    assert len(rows.eval) == EVAL_ROWS


def test_made_pairs_can_be_preferred(tmp_path: Path) -> None:
    plan = script_of("experiment=qwen3_8b_dpo", "pod.network_volume=a").run.plan

    data, note = few_rows(plan, ROOTS, tmp_path)

    assert note == "made rows, for the data are not at hand"
    assert read_data(data, MethodName.DPO, ()).row_format is RowFormat.PREFERENCE
