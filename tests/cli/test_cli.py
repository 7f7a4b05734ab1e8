"""The command line: what is printed where, and with which exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from podproof.cli import main
from podproof.cli.remembered import all_surroundings

VERBS = (
    *("compile", "verify", "launch", "runs", "show", "logs", "stop", "rescore"),
    *("diff", "approve", "replay"),
)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODPROOF_HOME", str(tmp_path / "home"))


def test_compile_writes_a_script_and_its_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["compile", "experiment=tiny_sft", "-o", str(tmp_path)])

    assert code == 0
    assert (tmp_path / "pod_script.py").is_file()
    assert "pod_script.py" in capsys.readouterr().out
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert written["bytes"] == (tmp_path / "pod_script.py").stat().st_size


def test_compile_says_in_json_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["compile", "experiment=tiny_dpo", "-o", str(tmp_path), "--json"])

    assert code == 0
    assert json.loads(capsys.readouterr().out)["method"] == "dpo"


def test_overrides_may_stand_after_options(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    argv = ["compile", "experiment=tiny_dpo", "--config-dir", str(mine), "method.beta=0.2"]

    code = main([*argv, "-o", str(tmp_path)])

    assert code == 0
    assert '"beta": 0.2' in (tmp_path / "pod_script.py").read_text()


def test_a_bad_config_is_exit_2_with_every_problem_on_stderr_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["compile", "experiment=tiny_sft", "trainer.learning_rat=1", "method.max_length=0"])

    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert "did you mean trainer.learning_rate?" in captured.err
    assert "method.max_length" in captured.err
    assert "Traceback" not in captured.err


def test_a_bad_config_is_json_on_stdout_when_json_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["compile", "experiment=nope", "--json"])

    assert code == 2
    assert json.loads(capsys.readouterr().out)["problems"][0]["where"] == "experiment"


def test_debug_shows_where_an_error_was_raised() -> None:
    from podproof.compiler.errors import BadConfig

    with pytest.raises(BadConfig):
        main(["--debug", "compile", "experiment=nope"])


def test_verify_prints_a_row_for_every_gate(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["verify", "experiment=tiny_sft"])

    out = capsys.readouterr().out
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if "passed" in line] == [
        "config",
        "artefact",
        "api",
        "size",
        "data",
        "memory",
        "scorer",
        "dryrun",
        "regression",
    ]
    assert "cleared for launch" in out


def test_the_gates_tell_how_far_they_are_in_one_line_that_rich_can_print() -> None:
    told: list[str] = []

    all_surroundings(told.append).on_progress("rows[red].jsonl, 5,000 rows", 0.5)

    assert told == ["━━━━━━━━━━────────── 50 %  rows\\[red].jsonl, 5,000 rows"]


def test_verify_writes_its_verdicts_into_the_manifest(tmp_path: Path) -> None:
    code = main(["verify", "experiment=tiny_sft", "gates=static", "-o", str(tmp_path)])

    written = json.loads((tmp_path / "manifest.json").read_text())
    outcomes = {verdict["gate"]: verdict["outcome"] for verdict in written["verdicts"]}
    assert code == 0
    assert outcomes["artefact"] == "passed"
    assert outcomes["scorer"] == "skipped"


def test_verify_of_a_refused_script_is_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["verify", "experiment=tiny_sft", "scorer=seed_v1", "--json"])

    report = json.loads(capsys.readouterr().out)
    refused = [item["gate"] for item in report["verdicts"] if item["outcome"] == "refused"]
    assert code == 1
    assert refused == ["scorer", "dryrun"]


def test_verify_of_a_bad_config_is_exit_2_and_a_refusal_in_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["verify", "experiment=tiny_sft", "trainer.eval_steps=-1", "--json"])

    report = json.loads(capsys.readouterr().out)
    assert code == 2
    assert report["cleared"] is False


def test_launch_refuses_what_is_not_cleared_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["launch", "experiment=tiny_sft", "scorer=seed_v1"])

    assert code == 1
    assert "refused by scorer, dryrun" in capsys.readouterr().err
    # What the gates remember, and nothing of a launch.
    assert {path.name for path in (tmp_path / "home").iterdir()} <= {"cache", "streams"}


def test_launch_on_runpod_without_a_key_says_how_to_set_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    code = main(["launch", "experiment=qwen3_8b_dpo", "pod.network_volume=abc"])

    assert code == 1
    assert "RUNPOD_API_KEY" in capsys.readouterr().err


def test_a_data_file_that_is_missing_is_refused_before_any_pod(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["launch", "experiment=tiny_sft", "data.path=nowhere.jsonl"])

    assert code == 1
    assert "nowhere.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["show", "logs", "stop"])
def test_a_run_that_does_not_exist_is_exit_2(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([verb, "nobody"])

    assert code == 2
    assert "nobody" in capsys.readouterr().err


def test_show_without_any_run_says_how_to_make_one(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["show"])

    assert code == 2
    assert "podproof launch" in capsys.readouterr().err


def test_runs_of_an_empty_store_is_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["runs", "--json"])

    assert code == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])

    assert ended.value.code == 0
    assert "usage: podproof" in capsys.readouterr().out


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["runs", "--colour"])

    assert ended.value.code == 2
    assert "--colour" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_written_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")

    code = main(["compile", "experiment=tiny_sft", "-o", str(tmp_path / "file")])

    assert code == 2
    assert "cannot be written" in capsys.readouterr().err


def test_nothing_is_coloured_in_a_pipe() -> None:
    command = [sys.executable, "-m", "podproof", "verify", "experiment=tiny_sft", "gates=static"]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "\x1b[" not in done.stdout + done.stderr


def test_compile_never_imports_what_it_has_no_use_for(tmp_path: Path) -> None:
    program = (
        "import sys; from podproof.cli import main; "
        f"main(['compile', 'experiment=tiny_sft', '-o', {str(tmp_path)!r}]); "
        "print(sorted({'torch', 'transformers', 'runpod', 'hypothesis'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "[]"
