"""`podproof diff` and `podproof approve`: what can stand on a side, what is printed, exit codes."""

import contextlib
import json
import subprocess
from pathlib import Path

import pytest

from podproof.cli import main
from podproof.monitor.store import open_store

SFT = "experiment=tiny_sft"
EXPERIMENT = "# @package _global_\ndefaults: [/experiment/tiny_sft]\nname: mine\nseed: {seed}\n"
SEED = Path(__file__).parents[1] / "compiler" / "seed_upgrade"


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODPROOF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    # The user of this machine's git is nobody in these tests.
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")


def write_experiment(seed: int) -> Path:
    path = Path("mine/experiment/mine.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(EXPERIMENT.format(seed=seed))
    return path


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository in which the seed of an experiment was changed, script and all."""
    folder = tmp_path_factory.mktemp("repository")
    git = ("git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    with contextlib.chdir(folder):
        subprocess.run([*git, "init", "--initial-branch", "main"], check=True)
        for seed in (1, 2):
            write_experiment(seed)
            main(["compile", "experiment=mine", "--config-dir", "mine", "-o", "built"])
            subprocess.run([*git, "add", "."], check=True)
            subprocess.run([*git, "commit", "-m", f"seed {seed}"], check=True)
    return folder


@pytest.fixture
def repository(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in the repository."""
    monkeypatch.chdir(history)


def changes(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    """Return the exit code and the names of the changes."""
    capsys.readouterr()
    code = main(["diff", *arguments, "--json"])
    return code, [item["name"] for item in json.loads(capsys.readouterr().out)["changes"]]


# What can stand on a side.


def test_two_configs(capsys: pytest.CaptureFixture[str]) -> None:
    code, names = changes(capsys, SFT, f"{SFT} trainer.learning_rate=1e-4")

    assert code == 1
    assert "arguments.learning_rate" in names


def test_two_scripts_that_are_not_ours(capsys: pytest.CaptureFixture[str]) -> None:
    code, names = changes(capsys, str(SEED / "before.py"), str(SEED / "after.py"))

    assert code == 1
    assert "TrainingMetricsCallback.on_evaluate" in names


def test_a_folder_with_a_script_and_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    main(["compile", SFT, "-o", "built"])

    assert changes(capsys, "built", SFT) == (0, [])


def test_a_yaml_file_of_an_experiment_and_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    path = write_experiment(1)

    same = changes(capsys, str(path), "experiment=mine", "--config-dir", "mine")

    assert same == (0, [])


@pytest.mark.usefixtures("repository")
def test_one_config_at_two_commits(capsys: pytest.CaptureFixture[str]) -> None:
    sides = [f"{revision}:mine/experiment/mine.yaml" for revision in ("HEAD~1", "main")]

    code, names = changes(capsys, *sides)

    assert code == 0
    assert names == ["arguments.seed", "seed"]


@pytest.mark.usefixtures("repository")
def test_overrides_and_a_script_at_a_commit(capsys: pytest.CaptureFixture[str]) -> None:
    sides = ["HEAD~1:experiment=mine trainer.logging_steps=6", "HEAD~1:built/pod_script.py"]

    assert changes(capsys, *sides, "--config-dir", "mine") == (0, [])


@pytest.mark.usefixtures("repository")
def test_a_commit_is_looked_at_from_the_folder_of_the_repository_one_stands_in(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("mine")

    code, names = changes(capsys, "HEAD~1:experiment/mine.yaml", "experiment/mine.yaml")

    assert (code, names) == (0, ["arguments.seed", "seed"])


@pytest.mark.usefixtures("repository")
def test_nothing_is_left_of_a_commit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    changes(capsys, "HEAD~1:mine/experiment/mine.yaml", "mine/experiment/mine.yaml")

    assert list((tmp_path / "temporary").iterdir()) == []


# What cannot.


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("nowhere.py", "there is no such file"),
        ("nowhere.yaml", "there is no such file"),
        ("tiny_sft", "experiment=NAME"),
        ("experiment=nope", "nope"),
        ("HEAD:nowhere.py", "not a git repository"),
        ("loose.yaml", "not in a folder called experiment"),
        ("broken.py", "is not Python"),
        ("empty", "there is no such file"),
    ],
)
def test_a_side_that_is_none_is_exit_2_with_the_way_out(
    argument: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("loose.yaml").write_text("name: x\n")
    Path("broken.py").write_text("def (\n")
    Path("empty").mkdir()

    code = main(["diff", argument, SFT])

    assert code == 2
    assert words in capsys.readouterr().err


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("no-such-branch:built", "no-such-branch"),
        ("--output=stolen:built", "--output=stolen"),
        ("HEAD:nowhere", "there is no such file"),
        ("HEAD:experiment=mine", "mine"),
    ],
)
def test_a_commit_that_has_it_not_is_exit_2(
    argument: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["diff", "built", "--", argument])

    assert code == 2
    assert words in capsys.readouterr().err
    assert not Path("stolen").exists()


# What is printed.


def test_the_table_names_risk_change_mitigation_and_what_it_means(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = main(["diff", SFT, f"{SFT} trainer.gradient_accumulation_steps=2"])

    out = capsys.readouterr().out
    assert code == 1
    assert "MEDIUM" in out
    assert "changed: arguments.gradient_accumulation_steps" in out
    assert "8 sequences per step" in out
    assert "1 MEDIUM: 1 needs an approval" in out


def test_markdown_is_one_table_for_a_pull_request(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["diff", SFT, f"{SFT} trainer.logging_steps=3", "--markdown"])

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert lines[0].startswith("### podproof diff: `experiment=tiny_sft`")
    row = "| LOW | arguments | changed: `arguments.logging_steps` | 6 -> 3 |"
    assert any(line.startswith(row) for line in lines)


def test_no_change_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["diff", SFT, SFT])

    assert code == 0
    assert "no change" in capsys.readouterr().out


# Approvals.


def test_verify_refuses_what_nobody_approved_and_says_how_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["approve", SFT, "--why", "the baseline"])

    code = main(["verify", SFT, "gates.skip.scorer='slow'", "trainer.logging_steps=3"])

    refused = capsys.readouterr().out
    assert code == 1
    assert "regression  gates.skip.scorer: MEDIUM: added, slow" in refused
    assert "podproof approve ... --why 'the reason'" in refused
    assert "refused by regression" in refused


def test_an_approval_says_who_when_why_and_what_was_new(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["approve", SFT, "--why", "the baseline"])
    main(["approve", SFT, "trainer.learning_rate=1e-4", "--why", "it diverged"])
    capsys.readouterr()

    main(["approve", "--list", "--json"])

    first, second = json.loads(capsys.readouterr().out)
    assert (first["who"], first["why"]) == ("Ada <ada@example.org>", "the baseline")
    assert (first["changes"], second["changes"]) == ([], ["MEDIUM changed arguments.learning_rate"])
    assert first["sha256"] != second["sha256"]


def test_a_script_of_a_file_is_approved_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    main(["compile", SFT, "-o", "built"])

    code = main(["approve", "--script", "built/pod_script.py", "--why", "as compiled"])

    assert code == 0
    approved = Path("podproof-approved/tiny-sft/pod_script.py")
    assert approved.read_bytes() == Path("built/pod_script.py").read_bytes()
    assert changes(capsys, "podproof-approved/tiny-sft", SFT) == (0, [])


def test_the_folder_of_approved_scripts_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODPROOF_APPROVED", str(tmp_path / "baselines"))

    main(["approve", SFT, "--why", "the baseline"])

    assert (tmp_path / "baselines" / "tiny-sft" / "approvals.json").is_file()


def test_an_approval_is_kept_in_the_store_where_there_is_one(tmp_path: Path) -> None:
    with open_store(tmp_path / "home" / "podproof.db") as store:
        assert store.approvals() == ()

    main(["approve", SFT, "--why", "the baseline"])

    with open_store(tmp_path / "home" / "podproof.db") as store:
        (approval,) = store.approvals()
    assert (approval.name, approval.why) == ("tiny-sft", "the baseline")


def test_without_a_store_none_is_made(tmp_path: Path) -> None:
    main(["approve", SFT, "--why", "the baseline"])

    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([SFT], "an approval needs a reason"),
        ([SFT, "--why", "  "], "an approval needs a reason"),
        ([SFT, "--script", "x.py", "--why", "x"], "exclude each other"),
        (["--script", "x.py", "--why", "x"], "cannot be read"),
        (["--script", str(SEED / "after.py"), "--why", "x"], "no manifest.json of its own"),
    ],
)
def test_an_approval_that_cannot_be_is_exit_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["approve", *arguments])

    assert code == 2
    assert words in capsys.readouterr().err
    assert not Path("podproof-approved").exists()
