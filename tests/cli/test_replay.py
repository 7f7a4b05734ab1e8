"""`podproof replay`: what is played, what is printed, and with which exit code it ends."""

import json
from pathlib import Path

import pytest

from podproof.cli import main
from podproof.harness.streams import Fault, FaultKind, FaultStream, save_stream
from podproof.runtime.plan import MethodName

RECORDINGS = Path(__file__).parents[1] / "streams"


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    faults = (Fault(18, FaultKind.KILL),)
    return save_stream(FaultStream(MethodName.SFT, eval_losses=(2.0, 1.0), faults=faults), tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a compiled script."""
    assert main(["compile", "experiment=tiny_sft", "-o", str(tmp_path / "made")]) == 0
    return tmp_path / "made"


def test_a_saved_stream_is_played_to_the_experiment_of_its_method(
    stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["replay", str(stream), "scorer=eval_loss", "--json"])

    document = json.loads(capsys.readouterr().out)
    assert (code, document["is_clean"], document["name"]) == (0, True, "tiny-sft")
    assert [item["process"] for item in document["events"] if item["event"] == "killed"] == [1]
    scores = [item["score"] for item in document["events"] if "evaluation" in item["told"]]
    assert scores == [2.0, 1.0]


def test_every_event_is_a_row_with_score_and_decision(
    stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["replay", str(stream), "scorer=eval_loss"])

    text = capsys.readouterr().out
    assert code == 0
    assert "evaluation, new_best" in text
    assert "nothing broken" in text


def test_a_recording_of_a_real_trainer_is_played(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["replay", str(RECORDINGS / "sft_nan_weights_nofilter.jsonl.gz"), "--json"])

    document = json.loads(capsys.readouterr().out)
    scores = [item["score"] for item in document["events"] if "evaluation" in item["told"]]
    assert code == 0
    assert scores[1:] == ["Infinity"] * 3


def test_a_script_with_a_slip_is_exit_1_and_the_invariant_is_named(
    stream: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = folder / "pod_script.py"
    script.write_text(script.read_text().replace("return -score.value if", "return score.value if"))
    capsys.readouterr()

    code = main(["replay", str(stream), "--script", str(script)])

    text = capsys.readouterr().out
    assert code == 1
    assert "scored at event" in text
    assert "docs/explanation/dry-run.md" in text


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "is empty"),
        ("[]", "must be an object"),
        ('{"loss": 1.0}', "has no header"),
        ('{"podproof_stream": {"method": "sft"}}', "missing field"),
        ('{"event": "_header", "method": "sft"}\n{"event": "on_log"}\n', "an event needs 'step'"),
        ('{"event": "_header", "method": "sft"}\n{"event": "_note"}\n', "has no event"),
    ],
)
def test_a_file_that_is_no_stream_is_exit_2_and_said(
    content: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(content)

    code = main(["replay", str(file)])

    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("bad-stream")
    assert what in error


def test_a_script_that_is_none_of_ours_is_not_run(
    stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "other.py"
    script.write_text("raise SystemExit('run')\n")

    code = main(["replay", str(stream), "--script", str(script)])

    assert code == 2
    assert "is no pod script" in capsys.readouterr().err


def test_a_script_and_overrides_are_one_too_many(
    stream: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["replay", str(stream), "--script", "pod_script.py", "scorer=eval_loss"])

    assert code == 2
    assert "not both" in capsys.readouterr().err
