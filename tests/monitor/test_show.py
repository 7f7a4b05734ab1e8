import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType
from tests.blessing import golden

from podproof.compiler.ir import Provider
from podproof.monitor.records import (
    Delivery,
    Ending,
    LaunchRecord,
    LaunchStatus,
    NoticeCount,
    PlanFacts,
    Publication,
    RunRecord,
    RunStatus,
    RunSummary,
    ScoredEvaluation,
)
from podproof.monitor.show import cost_usd, list_runs, run_to_dict, show_run, summary_to_dict

GOLDEN = Path(__file__).parent / "golden"

LAUNCH = LaunchRecord(
    run_id="demo-7f3a12c",
    name="demo",
    provider=Provider.RUNPOD,
    status=LaunchStatus.CREATED,
    pod_id="x9k2",
    script_sha256="5" * 64,
    config_sha256="c" * 64,
    intended_unix_s=1_700_000_000.0,
    cost_usd_per_h=0.44,
    log_path="runs/demo-7f3a12c/pod.log",
    output_path="runs/demo-7f3a12c/output",
)

EVALUATIONS = (
    ScoredEvaluation(50, 0.5, 1.25, 1.27, (("eval", 1.25), ("gap", 0.02)), "improving"),
    ScoredEvaluation(100, 1.0, 1.0, 1.005, (("eval", 1.0), ("gap", 0.005)), "flat"),
    ScoredEvaluation(150, None, math.nan, math.inf, (), "diverging"),
)

RUNNING = RunRecord(
    run_id="demo-7f3a12c",
    status=RunStatus.RUNNING,
    launch=LAUNCH,
    plan=PlanFacts("demo", "sft", "robust", "c" * 64, 200, 32, 12_000, 600),
    device="cuda:0",
    output="/workspace/demo-7f3a12c/output",
    boots=2,
    step=150,
    epoch=1.5,
    progress=0.75,
    evaluations=EVALUATIONS,
    best=EVALUATIONS[1],
    notices=(NoticeCount("3 rows were longer than max_length", 1), NoticeCount("nan skipped", 4)),
    started_unix_s=1_700_000_300.0,
    last_event_unix_s=1_700_003_000.0,
)

DONE = replace(
    RUNNING,
    status=RunStatus.DONE,
    launch=replace(LAUNCH, status=LaunchStatus.ENDED, ended_unix_s=1_700_003_600.0, reason="done"),
    boots=1,
    step=200,
    progress=1.0,
    delivery=Delivery(
        "/workspace/demo-7f3a12c/output/delivered", 100, (("model.safetensors", "a"),)
    ),
    publication=Publication("me/demo", "a1", "https://huggingface.co/me/demo/tree/a1", 100),
    ending=Ending(1_700_003_500.0, best_step=100, final_step=200),
    notices=(),
)

FAILED = RunRecord(
    run_id="demo-7f3a12c",
    status=RunStatus.FAILED,
    ending=Ending(
        5.0,
        error="BadData",
        problems=(
            "data.path: no such file: train.jsonl\n  way out: put it beside the script",
            "[bold]not markup[/bold] and no \x1b[31mescape\x1b[0m",
        ),
    ),
)

SUMMARIES = (
    RunSummary(
        "demo-7f3a12c",
        "demo",
        RunStatus.RUNNING,
        0.75,
        1.005,
        100,
        0.44,
        1_700_000_000.0,
        None,
        None,
    ),
    RunSummary(
        "other-000000", None, RunStatus.STOPPED_EARLY, None, None, None, None, None, None, None
    ),
)


def printed(renderable: RenderableType, *, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, record=True, force_terminal=False)
    console.print(renderable)
    return "".join(f"{line.rstrip()}\n" for line in console.export_text().splitlines())


@pytest.mark.parametrize(
    ("name", "renderable"),
    [
        ("running.txt", show_run(RUNNING, now_unix_s=1_700_001_800.0)),
        ("done.txt", show_run(DONE)),
        ("failed.txt", show_run(FAILED)),
        ("unheard.txt", show_run(RunRecord("demo-7f3a12c", RunStatus.INTENDED))),
        ("list.txt", list_runs(SUMMARIES)),
        ("empty_list.txt", list_runs([])),
    ],
)
def test_the_page_is_the_golden_one(name: str, renderable: RenderableType) -> None:
    text = printed(renderable)

    assert text == golden(GOLDEN / name, text)


def test_no_colour_and_no_escape_is_written_to_a_pipe() -> None:
    assert "\x1b" not in printed(show_run(FAILED))


def test_a_terminal_gets_colours_and_still_no_escape_of_the_pods() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard")

    console.print(show_run(FAILED))

    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "\x1b[31mfailed" in text
    assert "\x1b[31mescape" not in text


def test_a_narrow_terminal_loses_no_word_of_an_error() -> None:
    page = printed(show_run(FAILED), width=30)

    assert "way out: put it beside the script" in " ".join(page.split())


def test_the_run_as_json_is_strict_and_complete() -> None:
    plain = json.loads(json.dumps(run_to_dict(RUNNING), allow_nan=False))

    assert plain["status"] == "running"
    assert plain["launch"]["provider"] == "runpod"
    assert plain["evaluations"][2] == {
        "step": 150,
        "epoch": None,
        "eval_loss": "NaN",
        "score": "Infinity",
        "components": [],
        "trend": "diverging",
    }
    assert plain["best"]["step"] == 100


def test_a_summary_as_json_is_strict() -> None:
    plain = json.loads(json.dumps(summary_to_dict(SUMMARIES[0]), allow_nan=False))

    assert (plain["run_id"], plain["status"], plain["best_score"]) == (
        "demo-7f3a12c",
        "running",
        1.005,
    )


def test_a_pod_costs_its_price_from_the_launch_to_now() -> None:
    assert cost_usd(LAUNCH, LAUNCH.intended_unix_s + 7200) == pytest.approx(0.88)


def test_a_pod_that_has_ended_costs_no_more() -> None:
    ended = replace(LAUNCH, ended_unix_s=LAUNCH.intended_unix_s + 3600)

    assert cost_usd(ended, LAUNCH.intended_unix_s + 7200) == pytest.approx(0.44)


@pytest.mark.parametrize(
    ("launch", "now"), [(replace(LAUNCH, cost_usd_per_h=None), 1.8e9), (LAUNCH, None)]
)
def test_the_cost_is_not_guessed(launch: LaunchRecord, now: float | None) -> None:
    assert cost_usd(launch, now) is None
