"""One whole run on the local pod, and what is left when it is over."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run
from podproof.compiler.wire import wire_form

SHORT = (
    "trainer.max_steps=6",
    "trainer.eval_steps=2",
    "trainer.logging_steps=1",
    "data.max_rows=60",
)


def podproof(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "podproof", *arguments]
    environment = {**os.environ, "PODPROOF_HOME": str(home)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def shown(home: Path) -> dict[str, Any]:
    record = json.loads(podproof(home, "show", "--json").stdout)
    assert isinstance(record, dict)
    return record


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


def processes_naming(text: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in command and folder.name != str(os.getpid()):
            found.append(command)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the home of a short SFT run that was launched and ended well."""
    home = tmp_path_factory.mktemp("home")
    done = podproof(home, "launch", "experiment=tiny_sft", *SHORT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("the chosen weights lie in ")
    return home


def test_the_record_tells_the_whole_run(finished: Path) -> None:
    record = shown(finished)

    assert record["status"] == "done"
    assert [item["step"] for item in record["evaluations"]] == [2, 4, 6]
    assert record["ending"]["final_step"] == 6


def test_the_delivered_weights_are_those_of_the_best_checkpoint(finished: Path) -> None:
    record = shown(finished)
    best = min(record["evaluations"], key=lambda item: item["score"])
    delivered = digests(Path(record["delivery"]["path"]))
    checkpoint = digests(Path(record["output"]) / f"checkpoint-{best['step']}")

    assert record["best"]["step"] == best["step"] == record["delivery"]["step"]
    assert delivered["model.safetensors"] == checkpoint["model.safetensors"]
    assert delivered == dict(record["delivery"]["sha256"])


def test_every_event_of_the_run_is_in_the_store_once(finished: Path) -> None:
    record = shown(finished)
    lines = (Path(record["output"]) / "events.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]

    assert kinds[:2] == ["plan", "started"]
    assert kinds[-2:] == ["delivered", "done"]
    assert kinds.count("evaluation") == 3
    assert kinds.count("checkpoint_saved") == 3


def test_the_script_on_the_pod_is_the_one_that_was_compiled(finished: Path) -> None:
    record = shown(finished)
    script = compile_run(lower(read(Request(("experiment=tiny_sft", *SHORT)))))

    there = (Path(record["output"]).parent / "pod_script.py").read_text()
    assert there == wire_form(script.text)
    assert record["launch"]["script_sha256"] == script.sha256


def test_nothing_is_left_running_and_no_secret_is_written(finished: Path) -> None:
    record = shown(finished)

    assert processes_naming(record["run_id"]) == []
    assert processes_naming(str(finished)) == []
    assert "PODPROOF_REPORT_TOKEN" not in Path(record["launch"]["log_path"]).read_text()


def test_logs_prints_what_the_script_printed(finished: Path) -> None:
    done = podproof(finished, "logs")

    assert done.returncode == 0
    assert "sequences per step" in done.stdout


def test_show_takes_the_beginning_of_a_run_id(finished: Path) -> None:
    done = podproof(finished, "show", "tiny-sft", "--json")

    assert json.loads(done.stdout)["run_id"] == shown(finished)["run_id"]


def test_a_run_that_has_ended_is_left_as_it_is_by_stop(finished: Path) -> None:
    done = podproof(finished, "stop", "tiny-sft", "--json")

    assert done.returncode == 0
    assert "has ended already" in done.stderr
    assert json.loads(done.stdout)["status"] == "done"


def test_an_interrupted_launch_ends_the_pod_and_the_record_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "podproof", "launch", "experiment=tiny_sft"]
    environment = {**os.environ, "PODPROOF_HOME": str(tmp_path)}
    launcher = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert launcher.stderr is not None
    line = next(line for line in launcher.stderr if "runs on local pod" in line)
    time.sleep(1)

    launcher.send_signal(signal.SIGINT)
    launcher.communicate(timeout=60)

    assert launcher.returncode == 130
    assert shown(tmp_path)["status"] == "interrupted"
    assert processes_naming(line.split()[0]) == []
    assert processes_naming(str(tmp_path)) == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_preference_methods_run_the_whole_way_too(method: str, tmp_path: Path) -> None:
    done = podproof(tmp_path, "launch", f"experiment=tiny_{method}", *SHORT)

    assert done.returncode == 0, done.stderr
    record = shown(tmp_path)
    assert record["status"] == "done"
    assert record["delivery"]["step"] == record["best"]["step"]


@pytest.mark.slow
def test_an_interrupted_run_that_reports_to_nobody_still_has_its_events(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "podproof", "launch", "experiment=tiny_sft", "report=none"]
    environment = {**os.environ, "PODPROOF_HOME": str(tmp_path)}
    launcher = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert launcher.stderr is not None
    next(line for line in launcher.stderr if "runs on local pod" in line)
    time.sleep(5)

    launcher.send_signal(signal.SIGINT)
    launcher.communicate(timeout=60)

    record = shown(tmp_path)
    assert record["status"] == "interrupted"
    assert record["plan"]["train_rows"] == 96


@pytest.mark.slow
def test_a_local_run_that_reports_to_nobody_is_read_from_its_own_file(tmp_path: Path) -> None:
    done = podproof(tmp_path, "launch", "experiment=tiny_sft", "report=none", *SHORT)

    assert done.returncode == 0, done.stderr
    assert shown(tmp_path)["status"] == "done"


@pytest.mark.slow
def test_a_sweep_runs_every_job_through_hydra(tmp_path: Path) -> None:
    done = podproof(
        tmp_path,
        "launch",
        "-m",
        "experiment=tiny_sft",
        "trainer.learning_rate=1e-3,3e-3",
        "trainer.max_steps=2",
        "trainer.eval_steps=2",
        "data.max_rows=40",
    )

    assert done.returncode == 0, done.stderr
    runs = json.loads(podproof(tmp_path, "runs", "--json").stdout)
    assert [run["status"] for run in runs] == ["done", "done"]


@pytest.mark.slow
def test_a_run_out_of_time_delivers_the_best_so_far_and_says_so(tmp_path: Path) -> None:
    """The whole way: launcher, local pod, boot program and script; a minute and a half in all."""
    ended = podproof(
        tmp_path,
        "launch",
        "experiment=tiny_sft",
        "data.max_rows=60",
        "trainer.max_steps=100000",
        "pod.max_hours=0.025",
    )

    record = shown(tmp_path)
    log = Path(record["launch"]["log_path"]).read_text()
    assert ended.returncode == 6, ended.stderr
    assert record["status"] == "out_of_time"
    assert "the script ended with exit code 6" in log
    assert "SIGTERM" not in log
    assert record["ending"]["best_step"] == record["best"]["step"]
    assert (Path(record["delivery"]["path"]) / "config.json").exists()
