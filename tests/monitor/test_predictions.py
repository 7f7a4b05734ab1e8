"""Answers to sample prompts: their table, the record, and the page."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.blessing import golden
from tests.monitor.test_fold import event
from tests.monitor.test_show import GOLDEN, printed

from podproof.monitor.fold import fold_run
from podproof.monitor.records import Prediction, RunRecord, RunStatus
from podproof.monitor.show import show_run
from podproof.monitor.store import open_store
from podproof.runtime.events import Event, EventKind


def answered(seq: int, step: int, sample: object, *, boot: int = 1, **body: Any) -> Event:
    told: Mapping[str, Any] = {"sample": sample, "prompt": "2 + 2 =", "expected": "4", **body}
    return event(EventKind.PREDICTION, seq, boot=boot, step=step, body=told)


def rows(path: Path) -> list[tuple[Any, ...]]:
    asked = "SELECT step, sample, prompt, expected, answer FROM training_predictions ORDER BY 1, 2"
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.execute(asked))


def test_each_answer_of_each_evaluation_has_a_row(tmp_path: Path) -> None:
    with open_store(tmp_path / "runs.db") as store:
        store.ingest([answered(0, 50, 0, answer="5"), answered(1, 50, 1, answer="4")])
        store.ingest([answered(2, 100, 0, answer="4")])

    assert rows(tmp_path / "runs.db") == [
        (50, 0, "2 + 2 =", "4", "5"),
        (50, 1, "2 + 2 =", "4", "4"),
        (100, 0, "2 + 2 =", "4", "4"),
    ]


def test_an_answer_given_again_after_a_restart_replaces_the_older_one(tmp_path: Path) -> None:
    newer, older = answered(0, 50, 0, boot=2, answer="4"), answered(9, 50, 0, answer="5")
    with open_store(tmp_path / "runs.db") as store:
        store.ingest([newer])
        store.ingest([older])

    assert rows(tmp_path / "runs.db") == [(50, 0, "2 + 2 =", "4", "4")]


def test_an_answer_that_does_not_say_of_which_sample_has_no_row(tmp_path: Path) -> None:
    with open_store(tmp_path / "runs.db") as store:
        store.ingest([answered(0, 50, None), answered(1, 50, "first"), answered(2, 50, True)])
        record = store.run("run-a")

    assert rows(tmp_path / "runs.db") == []
    assert record.predictions == ()


def test_text_that_databases_refuse_is_stored_without_it(tmp_path: Path) -> None:
    with open_store(tmp_path / "runs.db") as store:
        store.ingest([answered(0, 50, 0, answer="a\0b\ud800")])

    assert rows(tmp_path / "runs.db") == [(50, 0, "2 + 2 =", "4", "ab?")]


def test_a_store_made_before_there_were_answers_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with open_store(path) as store:
        store.ingest([event(EventKind.TRAIN_LOG, 0, step=5, body={"loss": 1.0})])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE training_predictions")

    with open_store(path) as store:
        store.ingest([answered(1, 50, 0, answer="4")])
        record = store.run("run-a")

    assert [prediction.answer for prediction in record.predictions] == ["4"]


def test_the_record_has_the_answers_of_the_newest_evaluation_that_has_any() -> None:
    told = [
        answered(0, 50, 0, answer="5"),
        answered(2, 100, 1, answer="4", checks={"exact_match": True, "x": "y", "json": False}),
        answered(1, 100, 0, answer=7),
        event(EventKind.EVALUATION, 3, step=150, body={"score": 1.0}),
    ]

    record = fold_run("run-a", told, None)

    assert record.predictions == (
        Prediction(100, 0, "2 + 2 =", "4", ""),
        Prediction(100, 1, "2 + 2 =", "4", "4", (("exact_match", True), ("json", False))),
    )


def test_the_page_shows_the_newest_answers_compactly() -> None:
    predictions = (
        Prediction(
            150,
            0,
            "<|user|>\nWhat is the capital, and since when has it been that?\n<|assistant|>\n",
            "Paris, since 987.",
            "Paris,\tsince 987 \x1b[31m or so, as far as the chronicles tell us of it.",
            (("exact_match", False), ("character_error_rate", 1.5), ("json", False)),
        ),
        Prediction(
            150,
            1,
            "[bold]2 + 2[/bold] = ",
            "4",
            "4",
            (("exact_match", True), ("character_error_rate", 0.0)),
        ),
    )
    record = RunRecord("demo-7f3a12c", RunStatus.RUNNING, predictions=predictions)

    page = printed(show_run(record))

    assert page == golden(GOLDEN / "answers.txt", page)
