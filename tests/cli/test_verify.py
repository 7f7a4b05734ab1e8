"""`podproof verify` over folders, files and scripts: what is asked, reported and left behind."""

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from podproof.cli import main

GOOD = "# @package _global_\ndefaults: [tiny_sft]\nname: good\n"
BAD = "# @package _global_\ndefaults: [tiny_sft]\ntrainer:\n  lr: 1\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODPROOF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Make a folder of configs with one good experiment, one bad, and a part of others."""
    folder = tmp_path / "mine" / "experiment"
    (folder / "deep").mkdir(parents=True)
    (folder / "bad.yaml").write_text(BAD)
    (folder / "deep" / "good.yaml").write_text(GOOD)
    (folder / "_part.yaml").write_text("# @package _global_\ntrainer: {nonsense: 1}\n")
    return tmp_path / "mine"


def podproof(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # A process of its own: forking beside the threads of a test runner is not what users do.
    return subprocess.run(
        [sys.executable, "-m", "podproof", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def alive_in(session: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, *_, own = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # gone meanwhile
        found += [int(entry.name)] if int(own) == session and state != "Z" else []
    return found


def test_a_folder_is_verified_in_workers_and_every_report_written(
    tmp_path: Path, mine: Path
) -> None:
    reports = ("--sarif", "out/r.sarif", "--junit", "out/r.xml", "--html", "out/r.html")

    done = podproof(
        "verify", "--all", "mine", "--level", "static", "--jobs", "2", "--json", *reports,
        folder=tmp_path,
    )  # fmt: skip

    told = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert [(item["subject"], item["cleared"]) for item in told["results"]] == [
        ("bad", False),
        ("deep/good", True),
    ]
    assert told["results"][0]["verdicts"][0]["problems"][0]["line"] == 4
    sarif = json.loads((tmp_path / "out" / "r.sarif").read_text())
    assert sarif["runs"][0]["results"][0]["ruleId"] == "config"
    assert ET.parse(tmp_path / "out" / "r.xml").getroot().get("failures") == "1"  # noqa: S314
    assert "1 of 2 refused" in (tmp_path / "out" / "r.html").read_text()


def test_overrides_go_into_every_experiment_of_a_folder(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "experiment" / "bad.yaml").write_text(GOOD)

    code = main(["verify", "--all", "mine", "seed=-1", "--jobs", "1"])

    printed = capsys.readouterr().out
    assert code == 1
    assert printed.count('set by override 1: "seed=-1"') == 2
    assert "2 of 2 refused" in printed


def test_a_folder_by_any_name_holds_experiments(
    tmp_path: Path, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mine / "experiment").rename(tmp_path / "jobs")
    (tmp_path / "jobs" / "deep" / "good.yaml").unlink()

    code = main(["verify", "--all", "jobs", "--jobs", "1"])

    assert code == 1
    assert "set in jobs/bad.yaml:4" in capsys.readouterr().out


def test_files_are_verified_by_their_path_and_parts_left_out(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(mine / "experiment" / name) for name in ("deep/good.yaml", "_part.yaml")]

    code = main(["verify", "--level", "static", *files])

    assert code == 0
    assert "1 of 1 cleared" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--all", "nowhere"], "nowhere is not a folder"),
        (["--all", "empty"], "holds no experiment"),
        (["--all", "other"], "would not be seen"),
        (["absent.yaml"], "absent.yaml: is not a file"),
        (["other/experiment.yml"], "is no .yaml"),
        (["--script", "absent.py"], "absent.py: is not a file"),
        (["--script", "a.py", "seed=1"], "--script"),
        (["--script", "a.py", "--all", "empty"], "choose one"),
        (["--all", "empty", "-o", "out"], "--output"),
        (["experiment=tiny_sft", "--jobs", "0"], "--jobs"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ",
)
def test_a_wrong_command_is_exit_2_and_says_what_is_wrong(
    arguments: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "experiment.yml").write_text(GOOD)

    code = main(["verify", *arguments])

    assert code == 2
    assert what in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")

    code = main(["verify", "seed=-1", "--html", "file/report.html"])

    assert code == 2
    assert "--html: file/report.html cannot be written" in capsys.readouterr().err


def test_a_bad_config_is_reported_too_and_stays_exit_2(tmp_path: Path) -> None:
    code = main(["verify", "experiment=tiny_sft", "seed=-1", "--sarif", "r.sarif"])

    (result,) = json.loads((tmp_path / "r.sarif").read_text())["runs"][0]["results"]
    assert code == 2
    assert "override 2" in result["message"]["text"]


def test_the_level_on_the_command_line_wins(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["verify", "experiment=tiny_sft", "gates=fast", "--level", "static", "--json"])

    verdicts = json.loads(capsys.readouterr().out)["verdicts"]
    assert code == 0
    assert {item["outcome"] for item in verdicts if item["level"] == "fast"} == {"skipped"}


def test_a_script_compiled_before_is_asked_what_can_be_asked_of_a_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compile", "experiment=tiny_sft", "-o", "out"])
    capsys.readouterr()

    code = main(["verify", "--script", "out/pod_script.py", "--json"])

    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert told["cleared"]
    assert {item["outcome"] for item in told["verdicts"] if item["level"] != "full"} == {"passed"}


def test_a_script_that_was_tampered_with_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compile", "experiment=tiny_sft", "-o", "out"])
    script = tmp_path / "out" / "pod_script.py"
    script.write_text(script.read_text() + f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n")
    capsys.readouterr()

    code = main(["verify", "--script", "out/pod_script.py"])

    printed = capsys.readouterr().out
    assert code == 1
    assert "on record" in printed
    assert "refused by artefact" in printed
    assert not (tmp_path / "sprung").exists()


def test_a_foreign_file_is_refused_without_being_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trap = f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n"
    (tmp_path / "foreign.py").write_text(trap)

    code = main(["verify", "--script", "foreign.py"])

    assert code == 2
    assert "foreign.py: is no pod script" in capsys.readouterr().out
    assert not (tmp_path / "sprung").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_batch_that_is_ended_leaves_no_process(
    number: signal.Signals, tmp_path: Path, mine: Path
) -> None:
    for index in range(20):
        (mine / "experiment" / f"e{index}.yaml").write_text(GOOD)
    batch = subprocess.Popen(
        [sys.executable, "-m", "podproof", "verify", "--all", "mine", "--jobs", "2"],
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(alive_in(batch.pid)) < 3:
        time.sleep(0.05)

    if number is signal.SIGINT:
        os.killpg(batch.pid, number)  # as a terminal sends it, to every process
    else:
        batch.send_signal(number)
    _, errors = batch.communicate(timeout=60)

    expected = {signal.SIGINT: (130, "interrupted\n")}.get(number, (-number, ""))
    assert (batch.returncode, errors) == expected
    assert _all_gone(batch.pid)


def _all_gone(session: int) -> bool:
    """Wait until no process of a session is left; a worker sees its parent go within moments."""
    for _ in range(200):
        if not alive_in(session):
            return True
        time.sleep(0.05)
    return False
