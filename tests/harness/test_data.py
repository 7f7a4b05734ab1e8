"""The data gate: it refuses rows the pod would refuse, and no others, with place and way out."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from podproof.harness.verdict import untold
from podproof.runtime.data import read_data
from podproof.runtime.errors import BadData
from podproof.runtime.plan import DataPlan, DataSource, EvalPlan, MethodName, RowFormat
from tests.harness.data_world import (
    USER,
    Answered,
    ask,
    data_of,
    pair,
    plan_of,
    talk,
    talks,
    write_rows,
)

ANSWER = {"role": "assistant", "content": "It counts."}


def asked_about(folder: Path, bad: Any, *, good: int = 9, **fields: Any) -> Answered:
    """Ask about good conversations and a bad row after them."""
    return ask(folder, plan_of(data_of(folder, [*talks(good), bad], **fields)))


def add_line(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text(encoding='utf-8')}{line}\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("bad", "what", "way_out"),
    [
        ({"messages": None}, "messages is missing", "data.columns"),
        ({"messages": [USER, {**ANSWER, "content": None}]}, "has no content", "what was said"),
        ({"messages": [USER, {**ANSWER, "content": ""}]}, "has no content", "what was said"),
        ({"messages": [USER, {**ANSWER, "role": "gpt"}]}, "has the role 'gpt'", "gpt and bot"),
        ({"messages": [USER]}, "no assistant turn", "add the answer"),
        ({"messages": [USER, {**ANSWER, "content": "\ud800"}]}, "surrogate", "UTF-8"),
        ({"messages": "What?"}, "must be a list of messages", "mend the row"),
        (["What?"], "must be a JSON object", "{...}"),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_refused_with_its_line_and_a_way_out(
    tmp_path: Path, bad: Any, what: str, way_out: str
) -> None:
    answered = asked_about(tmp_path, bad)

    first, closing = answered.problems
    assert first.where == "rows.jsonl:10"
    assert what in first.what
    assert way_out in first.way_out
    assert "data.max_bad_fraction" in closing.way_out


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ({**pair(1), "rejected": "It counts."}, "are the same"),
        ({**pair(1), "chosen": " "}, "chosen is empty"),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [USER]}, "no assistant turn"),
        ({"prompt": [ANSWER], "chosen": [ANSWER], "rejected": [ANSWER]}, "turn of the user"),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]}, "are the same"),
    ],
)
def test_a_pair_with_nothing_to_prefer_is_refused(tmp_path: Path, bad: Any, what: str) -> None:
    data = data_of(tmp_path, [*map(pair, range(2, 9)), bad])

    answered = ask(tmp_path, plan_of(data, method=MethodName.DPO))

    assert what in answered.text
    assert "rows.jsonl:8" in answered.text


@pytest.mark.parametrize(
    ("method", "rows", "row_format"),
    [
        (MethodName.SFT, talks(9), RowFormat.MESSAGES),
        (MethodName.SFT, [{"text": f"line {number}"} for number in range(9)], RowFormat.TEXT),
        (
            MethodName.SFT,
            [{"prompt": f"q{number}", "completion": "a"} for number in range(9)],
            RowFormat.AUTO,
        ),
        (MethodName.DPO, [pair(number) for number in range(9)], RowFormat.PREFERENCE),
        (MethodName.ORPO, [pair(number) for number in range(9)], RowFormat.AUTO),
    ],
)
def test_rows_of_every_format_a_method_takes_are_not_refused(
    tmp_path: Path, method: MethodName, rows: list[Any], row_format: RowFormat
) -> None:
    data = data_of(tmp_path, rows, format=row_format, eval=EvalPlan(fraction=0.3))

    answered = ask(tmp_path, plan_of(data, method=method))

    assert answered.problems == ()
    assert answered.summary.startswith("6 rows to train on, 3 to evaluate on; tokens a row")


def test_bad_rows_within_the_share_are_reported_and_not_refused(tmp_path: Path) -> None:
    answered = asked_about(tmp_path, {"messages": []}, max_bad_fraction=0.1)

    assert answered.problems == ()
    assert "1 of 10 rows cannot be trained on (1 x messages has no assistant turn)" in (
        answered.summary
    )
    assert answered.details["sources"][0]["bad_rows"] == 1


def test_bad_rows_beyond_the_share_are_refused(tmp_path: Path) -> None:
    answered = asked_about(tmp_path, {"messages": []}, good=8, max_bad_fraction=0.1)

    assert "1 of 9 rows cannot be trained on" in answered.text


def test_of_many_bad_rows_a_few_of_each_kind_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    rows = [talk(1, said=""), {"messages": [USER]}] * 300

    answered = ask(tmp_path, plan_of(data_of(tmp_path, rows)))

    assert len(answered.problems) == 11
    assert "300 x messages[*] has no content" in answered.problems[-1].what
    assert "300 x messages has no assistant turn" in answered.problems[-1].what


def test_everything_that_is_wrong_with_both_files_is_told_at_once(tmp_path: Path) -> None:
    data = data_of(tmp_path, [talk(1), {"messages": []}], [{"messages": [USER]}, talk(2)])
    add_line(tmp_path / "rows.jsonl", "{broken")

    answered = ask(tmp_path, plan_of(data))

    places = {problem.where for problem in answered.problems}
    assert {"rows.jsonl:2", "rows.jsonl:3", "held_out.jsonl:1"} <= places


def test_both_files_that_are_missing_are_told_at_once(tmp_path: Path) -> None:
    answered = ask(tmp_path, plan_of(DataPlan(path="a.jsonl", eval=EvalPlan(path="b.jsonl"))))

    assert [problem.where for problem in answered.problems] == ["a.jsonl", "b.jsonl"]
    assert all(problem.way_out for problem in answered.problems)


def test_wrong_columns_do_not_hide_what_else_is_wrong(tmp_path: Path) -> None:
    path = write_rows(tmp_path, [{"question": "q"}])
    add_line(path, "{broken")

    answered = ask(tmp_path, plan_of(DataPlan(path="rows.jsonl")))

    assert "rows.jsonl:2: not JSON" in answered.text
    assert "the columns are question; sft needs messages" in answered.text


def test_parquet_is_read_where_pyarrow_is_installed(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.Table.from_pylist([*talks(8), talk(9, said=" ")])
    parquet.write_table(table, tmp_path / "rows.parquet")
    data = DataPlan(path="rows.parquet", source=DataSource.PARQUET)

    refused = ask(tmp_path, plan_of(data))
    dropped = ask(tmp_path, plan_of(replace(data, max_bad_fraction=0.2)))

    assert refused.problems[0].where == "rows.parquet row 9"
    assert dropped.summary.startswith("8 rows to train on")


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "rows.parquet").write_text("text", encoding="utf-8")

    answered = ask(tmp_path, plan_of(DataPlan(path="rows.parquet", source=DataSource.PARQUET)))

    assert "rows.parquet: not parquet" in answered.text


def test_progress_is_told_by_share_of_the_file(tmp_path: Path) -> None:
    told: list[tuple[str, float | None]] = []
    data = data_of(tmp_path, talks(12_000))

    ask(tmp_path, plan_of(data, max_length=64), on_progress=lambda *done: told.append(done))

    shares = [share for what, share in told if what.startswith("rows.jsonl")]
    assert len(shares) == 3
    assert shares == sorted(shares, key=lambda share: share or 0)
    assert told[1][0] == "rows.jsonl, 5,000 rows"
    assert 0.3 < (told[1][1] or 0) < 0.5
    assert any(what.startswith("tokens of rows.jsonl") for what, _ in told)


def test_nobody_need_hear_of_progress() -> None:
    assert untold("rows", 0.5) is None  # type: ignore[func-returns-value]


ROW = st.sampled_from(
    [
        *talks(4),
        {"messages": []},
        {"messages": [USER]},
        {"text": "t"},
        talk(5, said=" "),
        {"messages": [{**USER, "role": "human"}, ANSWER]},
        [1],
    ]
)


DATA = st.builds(
    partial(DataPlan, path="rows.jsonl", max_duplicate_fraction=1.0, max_leaked_fraction=1.0),
    max_bad_fraction=st.sampled_from([0.0, 0.25, 0.6]),
    max_rows=st.sampled_from([None, 3]),
    shuffle_seed=st.sampled_from([None, 7]),
    eval=st.builds(EvalPlan, fraction=st.sampled_from([None, 0.3])),
)


def pod_says(data: DataPlan, folder: Path) -> tuple[str, list[str]]:
    """Return what the pod trains and evaluates on, or the places of what it refuses."""
    try:
        read = read_data(data, MethodName.SFT, (folder,))
    except BadData as error:
        return "", [problem.where for problem in error.problems]
    return f"{len(read.train)} rows to train on, {len(read.eval)} to evaluate on", []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROW, min_size=2, max_size=12), DATA)
def test_the_gate_counts_and_refuses_what_the_pod_will(
    tmp_path: Path, rows: list[Any], data: DataPlan
) -> None:
    write_rows(tmp_path, rows)

    answered = ask(tmp_path, plan_of(data))

    counted, refused = pod_says(data, tmp_path)
    assert [problem.where for problem in answered.problems] == refused
    assert answered.summary.startswith(counted)


ASK = """
import sys
from pathlib import Path
from tests.harness.data_world import ask, data_of, plan_of, talks

folder = Path(sys.argv[1])
answered = ask(folder, plan_of(data_of(folder, talks(20)), max_length=64))
heavy = {"torch", "transformers", "trl", "datasets", "pyarrow", "numpy"}
loaded = {name.partition(".")[0] for name in sys.modules}
print(len(answered.problems), "tokens a row" in answered.summary, sorted(heavy & loaded))
"""


def test_counting_tokens_loads_no_weights_and_no_training_library(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert done.stdout == "0 True []\n", done.stderr
