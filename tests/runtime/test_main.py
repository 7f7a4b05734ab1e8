"""One run from its start: what it says, writes and returns when it cannot even begin to train."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from podproof.runtime.callback import StopRequest
from podproof.runtime.events import Event, EventKind, event_from_line
from podproof.runtime.main import _listen_for_signals, main, read_surroundings
from podproof.runtime.plan import (
    AdapterPlan,
    DataPlan,
    EvalPlan,
    MethodName,
    ModelPlan,
    Plan,
    PredictionsPlan,
    PublishPlan,
    RecoveryPlan,
    ReportPlan,
    ScorerPlan,
    Sink,
    plan_to_json,
)

PLAN = Plan(
    name="tiny",
    seed=1,
    method=MethodName.SFT,
    model=ModelPlan(),
    data=DataPlan(path="rows.jsonl", eval=EvalPlan(fraction=0.25)),
    adapter=AdapterPlan(),
    arguments={
        "per_device_train_batch_size": 2,
        "num_train_epochs": 1.0,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "load_best_model_at_end": True,
    },
    scorer=ScorerPlan(),
    recovery=RecoveryPlan(),
    predictions=PredictionsPlan(),
    report=ReportPlan(sink=Sink.NONE),
    publish=PublishPlan(),
    gpu_count=1,
    node_count=1,
    config_sha256="c" * 64,
)
ROW = json.dumps(
    {
        "messages": [
            {"role": "user", "content": "what does len do?"},
            {"role": "assistant", "content": "it counts"},
        ]
    }
)


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand in an empty folder with no PODPROOF_ variable, and put signals back afterwards."""
    for name in [name for name in os.environ if name.startswith("PODPROOF_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield tmp_path
    for number, handler in before.items():
        signal.signal(number, handler)


def with_rows(folder: Path, *lines: str) -> None:
    (folder / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines))


def events_in(output: Path) -> list[Event]:
    return [event_from_line(line) for line in (output / "events.jsonl").read_text().splitlines()]


def written(**changes: Any) -> str:
    return json.dumps({**asdict(PLAN), **changes})


# A plan that cannot be read.


def test_a_bad_plan_is_exit_code_2_with_every_problem_and_writes_nothing(
    surroundings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(written(seed="one", method="ppo"), {}, [])

    said = capsys.readouterr().err
    assert code == 2
    assert "plan.seed: must be a whole number" in said
    assert "plan.method: must be one of sft, dpo, orpo" in said
    assert list(surroundings.iterdir()) == []


@pytest.mark.parametrize("option", ["--self-check", "extra", "--selfcheck=1"])
def test_an_argument_it_does_not_have_is_exit_code_2(option: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(plan_to_json(PLAN), {}, [option])

    assert ended.value.code == 2


# Data that cannot be trained on.


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        (None, "no such file"),
        ([], "holds no rows"),
        (["", ""], "holds no rows"),
        ([ROW, "{broken", ROW], "rows.jsonl:2: not JSON"),
        (['{"colour": "red"}'] * 3, "rows.jsonl:1"),
        ([ROW], "one row cannot be parted"),
    ],
    ids=["missing", "empty", "blank", "broken line", "no column of ours", "one row"],
)
def test_bad_data_is_exit_code_3_and_ends_the_record_with_what_is_wrong(
    surroundings: Path, lines: list[str] | None, what: str
) -> None:
    if lines is not None:
        with_rows(surroundings, *lines)

    code = main(plan_to_json(PLAN), {}, [])

    last = events_in(surroundings / "podproof-output")[-1]
    assert code == 3
    assert (last.kind, last.is_terminal) == (EventKind.FAILED, True)
    assert last.body["error"] == "BadData"
    assert what in " ".join(last.body["problems"])


def test_events_carry_the_run_the_boot_and_their_number(
    surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODPROOF_RUN_ID", "run-a")
    monkeypatch.setenv("PODPROOF_BOOT", "3")
    monkeypatch.setenv("PODPROOF_OUTPUT", str(surroundings / "out" / "put"))

    main(plan_to_json(PLAN), {}, [])

    (event,) = events_in(surroundings / "out" / "put")
    assert (event.event_id, event.run_id, event.boot, event.seq) == ("run-a-3-0", "run-a", 3, 0)


def test_a_bare_script_started_again_where_it_stood_counts_its_starts(surroundings: Path) -> None:
    main(plan_to_json(PLAN), {}, [])
    main(plan_to_json(PLAN), {}, [])

    ids = [event.event_id for event in events_in(surroundings / "podproof-output")]
    assert ids == ["tiny-cccccccc-1-0", "tiny-cccccccc-2-0"]


def test_an_error_of_ours_is_exit_code_1_with_its_traceback_in_the_record(
    surroundings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_rows(surroundings, *[ROW] * 8)
    broken = replace(PLAN, arguments={"per_device_train_batch_size": "eight"})

    code = main(plan_to_json(broken), {}, [])

    last = events_in(surroundings / "podproof-output")[-1]
    assert code == 1
    assert last.kind is EventKind.FAILED
    assert last.body["error"].startswith("ValueError: invalid literal for int()")
    assert last.body["problems"][-1] == last.body["error"]
    assert "Traceback" in capsys.readouterr().err


# --selfcheck


def test_the_self_check_prints_the_vectors_and_the_arithmetic_and_writes_nothing(
    surroundings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_rows(surroundings, *[ROW] * 8)

    code = main(plan_to_json(PLAN), {}, ["--selfcheck"])

    assert code == 0
    assert capsys.readouterr().out == (
        "tiny: sft, scored by robust\n"
        "scorer vectors: all reproduced\n"
        "batch 2 x accumulation 1 x 1 GPU = 2 sequences per step\n"
        "6 rows = 3 steps per epoch\n"
        "3 steps in all, 2 evaluations, 2 saves\n"
    )
    assert [path.name for path in surroundings.iterdir()] == ["rows.jsonl"]


def test_the_self_check_says_which_data_it_cannot_count(
    surroundings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(plan_to_json(PLAN), {}, ["--selfcheck"])

    captured = capsys.readouterr()
    assert code == 3
    assert "scorer vectors: all reproduced" in captured.out
    assert "rows.jsonl: no such file" in captured.err
    assert list(surroundings.iterdir()) == []


# Surroundings.


def test_a_bare_script_runs_where_it_stands(surroundings: Path) -> None:
    found = read_surroundings(PLAN)

    assert found.run_id == "tiny-cccccccc"
    assert (found.boot, found.output) == (1, (surroundings / "podproof-output").resolve())
    assert found.data_roots[0] == Path.cwd()
    assert found.endpoint is None


def test_a_data_folder_comes_before_where_the_script_stands(
    surroundings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODPROOF_DATA", "/volume/run/data")

    assert read_surroundings(PLAN).data_roots[:2] == (Path("/volume/run/data"), Path.cwd())


@pytest.mark.parametrize(
    ("report", "url", "wanted"),
    [
        (ReportPlan(sink=Sink.LOCAL), "http://127.0.0.1:1", "http://127.0.0.1:1"),
        (ReportPlan(sink=Sink.LOCAL), "", None),
        (ReportPlan(sink=Sink.HTTP, url="https://a"), "", "https://a"),
        (ReportPlan(sink=Sink.HTTP, url="https://a"), "https://b", "https://b"),
        (ReportPlan(sink=Sink.NONE, url="https://a"), "https://b", None),
    ],
)
def test_events_go_where_the_environment_says_then_the_plan_and_nowhere_for_none(
    monkeypatch: pytest.MonkeyPatch, report: ReportPlan, url: str, wanted: str | None
) -> None:
    monkeypatch.setenv("PODPROOF_REPORT_URL", url)
    monkeypatch.setenv("PODPROOF_REPORT_TOKEN", "token")

    endpoint = read_surroundings(replace(PLAN, report=report)).endpoint

    assert (endpoint and endpoint.url) == wanted


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_a_boot_number_that_is_none_is_exit_code_2_without_a_traceback(
    surroundings: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: str,
) -> None:
    monkeypatch.setenv("PODPROOF_BOOT", number)

    code = main(written(), {}, [])

    assert code == 2
    assert "PODPROOF_BOOT" in capsys.readouterr().err


# Signals.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_for_an_orderly_end_and_a_second_one_ends_at_once(
    number: signal.Signals,
) -> None:
    stop = StopRequest(is_awaited=True)
    _listen_for_signals(stop)

    os.kill(os.getpid(), number)
    asked = stop.reason
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)

    assert asked == number.name


def test_a_signal_that_no_step_waits_for_ends_at_once() -> None:
    stop = StopRequest()
    _listen_for_signals(stop)

    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)

    assert stop.reason == "SIGTERM"
