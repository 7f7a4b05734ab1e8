"""The pages: what they tell to type works, what they link to is there, and nothing is left out."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from podproof.compiler.ir import Provider
from podproof.monitor.records import LaunchRecord, LaunchStatus
from podproof.monitor.store import open_store

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/**/*.md"),
        *ROOT.glob("benchmarks/**/*.md"),
    ]
)
PACKAGES = ("compiler", "runtime", "harness", "launcher", "monitor", "src/podproof/cli")
SOURCES = [path for folder in PACKAGES for path in (ROOT / folder).glob("*.py")]

CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
VARIABLE = re.compile(r"\bPODPROOF_[A-Z]+(?:_[A-Z]+)*\b")
ABSOLUTE = re.compile(r"(?:^|[\s`\"'(=])/(\w[\w.-]*)", re.MULTILINE)

# What may follow a slash that stands alone: a pod's volume, the routes of servers, Hydra's groups.
ROOTS_OF_PATHS = {"workspace", "rpc", "healthz", "graphql"} | {
    path.name for path in (ROOT / "conf").iterdir()
}


# The verbs whose commands are run with every test; launches take longer.
QUICK = ("compile", "verify", "runs", "show", "rescore", "diff", "approve", "replay")


@dataclass(frozen=True)
class Command:
    """A command of a page, and the exit code the page shows for it."""

    page: Path
    line: str
    code: int

    def __str__(self) -> str:
        return f"{self.page.name}: {self.line}"


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands() -> Iterator[Command]:
    """Yield the podproof commands of all pages; a following `$ echo $?` shows the exit code."""
    for page in PAGES:
        for block in CONSOLE.findall(text_of(page)):
            for line, after in pairwise([*re.split(r"^\$ ", block, flags=re.MULTILINE)[1:], ""]):
                is_shown = after.startswith("echo $?")
                if line.startswith("podproof "):
                    code = int(after.splitlines()[1]) if is_shown else 0
                    yield Command(page, line.splitlines()[0], code)


def chosen(*verbs: str) -> list[Command]:
    """Return the commands with one of these verbs, one of each line."""
    found = (command for command in commands() if command.line.split()[1] in verbs)
    return list({command.line: command for command in found}.values())


def run(command: Command, folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a command where the files of its page are."""
    for name, content in FILE.findall(text_of(command.page)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", *shlex.split(command.line)],
        cwd=folder,
        env={**os.environ, "PODPROOF_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def heading_anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings have on the web."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def dead_links(page: Path) -> list[str]:
    links = [link for link in LINK.findall(text_of(page)) if "://" not in link]
    dead = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_there = target.exists() and (not anchor or anchor in heading_anchors(target))
        dead += [] if is_there else [link]
    return dead


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with one run in its store, for the commands that show runs."""
    folder = tmp_path_factory.mktemp("home")
    launch = LaunchRecord(
        run_id="tiny-sft-20261124-041146-3c45",
        name="tiny-sft",
        provider=Provider.LOCAL,
        status=LaunchStatus.INTENDED,
        pod_id=None,
        script_sha256="0" * 64,
        config_sha256="0" * 64,
        intended_unix_s=0.0,
    )
    with open_store(folder / "podproof.db") as store:
        store.intend_launch(launch)
    return folder


@pytest.mark.parametrize("command", chosen(*QUICK), ids=str)
def test_a_command_exits_as_its_page_says(command: Command, home: Path, tmp_path: Path) -> None:
    done = run(command, tmp_path, home)

    assert done.returncode == command.code, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", chosen("launch"), ids=str)
def test_a_launch_exits_as_its_page_says(command: Command, tmp_path: Path) -> None:
    done = run(command, tmp_path, tmp_path / "home")

    assert done.returncode == command.code, done.stdout + done.stderr


def test_every_command_on_a_page_is_run() -> None:
    run_by_tests = chosen(*QUICK, "launch")

    assert {command.line for command in commands()} == {command.line for command in run_by_tests}


def test_every_verb_has_its_heading_in_the_reference() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "podproof", "--help"], capture_output=True, text=True, check=True
    )

    verbs = re.findall(r"^    (\w+)  ", done.stdout, re.MULTILINE)
    headings = re.findall(
        r"^## podproof (\w+)$", text_of(ROOT / "docs/reference/cli.md"), re.MULTILINE
    )
    assert verbs == headings


@pytest.mark.parametrize(
    "verb",
    [
        *("compile", "verify", "launch", "runs", "show", "logs", "stop", "rescore"),
        *("diff", "approve", "replay"),
    ],
)
def test_every_option_is_in_the_reference(verb: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "podproof", verb, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )

    options = set(re.findall(r"--[a-z-]+", done.stdout)) - {"--help"}
    described = set(re.findall(r"--[a-z-]+", text_of(ROOT / "docs/reference/cli.md")))
    assert options <= described


def test_the_reference_names_the_variables_that_the_code_reads_and_no_others() -> None:
    code = "".join(map(text_of, [*SOURCES, ROOT / "Makefile"]))
    page = text_of(ROOT / "docs/reference/environment.md")

    assert set(VARIABLE.findall(page)) == set(VARIABLE.findall(code))


def test_the_page_of_config_keys_is_what_the_schema_makes() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/make_reference.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_the_architecture_has_a_line_for_every_module() -> None:
    listed = re.findall(r"^      (\w+\.py) ", text_of(ROOT / "ARCHITECTURE.md"), re.MULTILINE)
    is_empty_init = {ROOT / folder / "__init__.py" for folder in PACKAGES[:-1]}

    assert sorted(listed) == sorted(path.name for path in SOURCES if path not in is_empty_init)


def test_the_tree_of_the_readme_names_folders_that_exist() -> None:
    folders = re.findall(r"^    ([\w/]+)/ ", text_of(ROOT / "README.md"), re.MULTILINE)

    assert len(folders) == 11
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_resolves(page: Path) -> None:
    assert dead_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_no_path_of_the_machine_it_was_written_on(page: Path) -> None:
    assert set(ABSOLUTE.findall(text_of(page))) <= ROOTS_OF_PATHS
