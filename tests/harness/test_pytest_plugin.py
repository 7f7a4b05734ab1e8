"""`pytest --podproof`: experiments are files of tests, gates are tests, and nobody else notices."""

import subprocess
import sys
from pathlib import Path

import pytest

from podproof.compiler.schema import GATE_IDS
from podproof.harness import judgement  # noqa: F401 - imported once, and not in every test

pytest_plugins = ("pytester",)

PLUGIN = "podproof.harness.pytest_plugin"
GOOD = "# @package _global_\ndefaults: [tiny_sft]\nname: good\ngates: {level: static}\n"
BAD = "# @package _global_\ndefaults: [tiny_sft]\ntrainer:\n  lr: 1\n"
NO_ROWS = f"{GOOD}data: {{path: nowhere.jsonl}}\n"


@pytest.fixture
def experiments(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder of experiments, beside a test and a YAML file that are none."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    folder = pytester.path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "good.yaml").write_text(GOOD)
    (folder / "bad.yaml").write_text(BAD)
    (folder / "_part.yaml").write_text("nonsense: 1\n")
    (pytester.path / "other.yaml").write_text("nonsense: 1\n")
    pytester.makepyfile(test_other="def test_other(): pass")
    return folder


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest within this one, without the plugins that chance to be installed.

    Every warning is an error.
    """
    plugins = ("-p", PLUGIN, "-p", "xdist", "-p", "no:cacheprovider", "-W", "error")
    return pytester.runpytest_inprocess(*plugins, *arguments)


def test_every_experiment_and_gate_is_an_item_and_parts_are_none(
    pytester: pytest.Pytester, experiments: Path
) -> None:
    result = run(pytester, "--podproof", "conf/experiment", "--collect-only", "-q")

    wanted = [
        f"conf/experiment/{name}.yaml::{gate}" for name in ("bad", "good") for gate in GATE_IDS
    ]
    assert [line for line in result.outlines if "::" in line] == wanted


def test_a_refused_config_fails_with_place_and_way_out_and_without_a_traceback(
    pytester: pytest.Pytester, experiments: Path
) -> None:
    result = run(pytester, "--podproof", "conf/experiment/bad.yaml", "-rs")

    result.assert_outcomes(failed=1, skipped=len(GATE_IDS) - 1)
    result.stdout.fnmatch_lines(
        [
            "*bad: gate config*",
            "the config gate refused bad.yaml",
            "trainer.lr: no such key",
            "  set in conf/experiment/bad.yaml:4",
            "  way out: did you mean trainer.learning_rate[?]",
            "*no script: the config gate refused*",
        ]
    )
    assert "Traceback" not in result.stdout.str()
    assert "pytest_plugin.py" not in "".join(result.outlines[3:-20])


def test_a_gate_that_is_left_out_is_a_skip_with_its_reason(
    pytester: pytest.Pytester, experiments: Path
) -> None:
    result = run(pytester, "--podproof", "conf/experiment/good.yaml::scorer", "-rs")

    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*level static leaves it out*"])


def test_a_gate_is_chosen_by_k_and_refuses_with_what_is_wrong(
    pytester: pytest.Pytester, experiments: Path
) -> None:
    (experiments / "good.yaml").write_text(NO_ROWS)

    result = run(pytester, "--podproof", "conf/experiment", "-k", "good and data")

    result.assert_outcomes(failed=1, deselected=2 * len(GATE_IDS) - 1)
    result.stdout.fnmatch_lines(["the data gate refused good.yaml", "*nowhere.jsonl*"])


def test_the_level_of_the_command_line_wins(pytester: pytest.Pytester, experiments: Path) -> None:
    result = run(
        pytester, "--podproof", "--podproof-level", "fast", "conf/experiment/good.yaml::dryrun"
    )

    result.assert_outcomes(passed=1)


def test_xdist_shares_the_items_out(pytester: pytest.Pytester, experiments: Path) -> None:
    result = run(pytester, "--podproof", "conf/experiment", "-n", "2", "-k", "config or size")

    result.assert_outcomes(passed=2, failed=1, skipped=1)


def test_a_named_folder_by_another_name_holds_experiments_too(
    pytester: pytest.Pytester, experiments: Path
) -> None:
    experiments.rename(pytester.path / "jobs")

    named = run(pytester, "--podproof", "jobs", "-k", "good and config")
    unnamed = run(pytester, "--podproof", "-k", "good and config")

    named.assert_outcomes(passed=1, deselected=2 * len(GATE_IDS) - 1)
    unnamed.assert_outcomes(deselected=1)


def test_without_its_flag_the_plugin_collects_nothing(
    pytester: pytest.Pytester, experiments: Path
) -> None:
    result = run(pytester)

    result.assert_outcomes(passed=1)


def test_loading_the_plugin_imports_nothing_that_takes_time() -> None:
    program = (
        f"import sys; import {PLUGIN}; "
        "print(sorted(name for name in sys.modules if name.startswith('podproof')), "
        "sorted({'hydra', 'hypothesis', 'torch', 'yaml', 'rich.table'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    loaded = ["podproof", "podproof.harness", PLUGIN]
    assert done.stdout == f"{loaded} []\n"


def test_the_entry_point_is_named_as_its_module() -> None:
    # Else pytest, told `-p` beside the installed entry point, would register it twice.
    import tomllib

    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]

    assert project["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}
