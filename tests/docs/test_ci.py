"""What docs/how-to/ci.md offers: the action, the hook and the Python API do what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from podproof.compiler.schema import GATE_IDS
from podproof.harness.questions import QUESTIONS

ROOT = Path(__file__).parents[2]
GOOD = "# @package _global_\ndefaults: [tiny_sft]\nname: good\n"
BAD = "# @package _global_\ndefaults: [tiny_sft]\ntrainer:\n  lr: 1\n"


def yaml_of(text: str) -> Any:
    return yaml.safe_load(text)


@pytest.fixture
def action() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml_of((ROOT / "action.yml").read_text())
    return loaded


@pytest.fixture
def hook() -> dict[str, Any]:
    (loaded,) = yaml_of((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Make a folder with one bad experiment, and a podproof to call by its name."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "bad.yaml").write_text(BAD)
    command = tmp_path / "bin" / "podproof"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m podproof "$@"\n')
    command.chmod(0o755)
    return tmp_path


def shell(line: str, folder: Path, **given: str) -> subprocess.CompletedProcess[str]:
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", line],  # noqa: S607 - as a runner finds it
        cwd=folder,
        env={**os.environ, "PATH": path, "PODPROOF_HOME": str(folder / "home"), **given},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_step_of_the_action_names_what_it_uses_or_runs(action: dict[str, Any]) -> None:
    steps = action["runs"]["steps"]

    assert action["runs"]["using"] == "composite"
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert all("shell" in step for step in steps if "run" in step)


def test_every_input_of_the_action_is_described_and_used(action: dict[str, Any]) -> None:
    used = set(re.findall(r"inputs\.([a-z-]+)", str(action["runs"]) + str(action["outputs"])))

    assert used == set(action["inputs"])
    assert all(item["description"] for item in action["inputs"].values())


def test_the_step_of_the_action_refuses_and_leaves_its_reports(
    action: dict[str, Any], here: Path
) -> None:
    (step,) = [step for step in action["runs"]["steps"] if step.get("id") == "verify"]
    defaults = {name: item["default"] for name, item in action["inputs"].items()}
    given = {
        key: defaults[re.fullmatch(r"\$\{\{ inputs\.([a-z-]+) \}\}", value)[1]]  # type: ignore[index]  # fails the test when it is None
        for key, value in step["env"].items()
    }

    done = shell(step["run"], here, **given, GITHUB_OUTPUT=str(here / "outputs"))

    assert done.returncode == 1, done.stderr
    assert "set in conf/experiment/bad.yaml:4" in done.stdout
    assert (here / "outputs").read_text() == "cleared=false\n"
    reports = sorted(path.name for path in (here / "podproof-reports").iterdir())
    assert reports == ["podproof.html", "podproof.sarif", "podproof.xml"]


def test_the_hook_asks_about_the_files_that_changed(hook: dict[str, Any], here: Path) -> None:
    # pre-commit puts the names of the changed files behind the entry.
    done = shell(f"{hook['entry']} conf/experiment/bad.yaml", here)

    assert hook["id"] == "podproof-verify"
    assert done.returncode == 1
    assert "way out: did you mean trainer.learning_rate?" in done.stdout


@pytest.mark.parametrize(
    ("path", "is_asked"),
    [
        ("conf/experiment/faq.yaml", True),
        ("experiment/deep/faq.yml", True),
        ("conf/data/faq.yaml", False),
        ("conf/experiment/notes.md", False),
        ("my_experiment/faq.yaml", False),
    ],
)
def test_the_hook_is_for_experiments(hook: dict[str, Any], path: str, is_asked: bool) -> None:  # noqa: FBT001
    assert bool(re.search(hook["files"], path)) is is_asked


def test_the_workflow_on_the_page_gives_inputs_that_the_action_has(action: dict[str, Any]) -> None:
    page = (ROOT / "docs/how-to/ci.md").read_text()
    blocks = [yaml_of(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    (workflow,) = [block for block in blocks if "jobs" in block]
    (config,) = [block for block in blocks if "repos" in block]

    (step,) = [step for step in workflow["jobs"]["verify"]["steps"] if "with" in step]
    assert set(step["with"]) <= set(action["inputs"])
    assert config["repos"][0]["hooks"][0]["id"] == "podproof-verify"


def test_the_example_of_the_python_page_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs/reference/python.md").read_text()
    found = re.search(r"`check.py`:\n\n```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    (tmp_path / "check.py").write_text(found[1])

    done = subprocess.run(
        [sys.executable, "check.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "artefact passed" in done.stdout
    assert (tmp_path / "pod_script.py").is_file()


def test_importing_podproof_loads_nothing_of_it() -> None:
    program = "import sys, podproof; print([name for name in sys.modules if 'podproof.' in name])"

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


def test_the_index_of_the_gates_asks_what_the_reports_say_they_ask() -> None:
    index = (ROOT / "docs/gates/index.md").read_text()
    rows = re.findall(r"^\| (?:\[|`)(\w+).*? \| \w+ \| (.*\?) \|$", index, re.MULTILINE)

    assert dict(rows) == dict(QUESTIONS)
    assert [gate for gate, _ in rows if gate in GATE_IDS] == list(GATE_IDS)


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs/gates").glob("[!i]*.md")), ids=lambda page: page.stem
)
def test_a_page_of_a_gate_answers_four_questions(page: Path) -> None:
    headings = "\n".join(re.findall(r"^## (.*)$", page.read_text().lower(), re.MULTILINE))

    assert re.search(r"asks.*refusal.*ways? out.*cannot see", headings, re.DOTALL)
    assert page.stem in QUESTIONS
