"""`pytest --podproof`: every experiment is a file of tests, and every gate one test of it.

    pytest --podproof conf/experiment
    pytest --podproof -n auto -k "artefact or data"
    pytest --podproof conf/experiment/tiny_sft.yaml::scorer

A refusal fails its test, with what, where and the way out; a gate that is not asked is skipped,
with the reason. Loading this module imports nothing of podproof: with the package installed every
run of pytest does so.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podproof.compiler.errors import BadConfig
    from podproof.compiler.ir import PodScript
    from podproof.compiler.read import Request
    from podproof.harness.verdict import GateVerdict, Surroundings
    from podproof.harness.warm import WarmTrainer

_WARM: pytest.StashKey[WarmTrainer] = pytest.StashKey()


class GateRefused(Exception):
    """A gate refused; carries its problems as text."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; without the first of them nothing else of this module does anything."""
    group = parser.getgroup("podproof", "gates for fine-tuning runs")
    group.addoption(
        "--podproof",
        action="store_true",
        help="collect the experiments: YAML files below a folder called experiment, or named here",
    )
    group.addoption(
        "--podproof-level",
        choices=("static", "fast", "full"),
        help="how much is proven, whatever gates.level says",
    )
    group.addoption("--podproof-config-dir", metavar="DIR", help="a folder of your own configs")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a YAML file that is an experiment; parts, whose names begin with _, are none."""
    config = parent.config
    if not config.getoption("--podproof") or file_path.suffix != ".yaml":
        return None
    if file_path.name.startswith("_") or not _is_experiment(file_path, config):
        return None
    collected: pytest.Collector = ExperimentFile.from_parent(parent, path=file_path)
    return collected


def _is_experiment(path: Path, config: pytest.Config) -> bool:
    if any(folder.name == "experiment" for folder in path.parents):
        return True
    named = {Path(argument.partition("::")[0]).resolve() for argument in config.args}
    by_command = config.args_source is pytest.Config.ArgsSource.ARGS
    return by_command and bool({path.resolve(), path.parent.resolve()} & named)


def _surroundings(config: pytest.Config) -> Surroundings:
    """Return the usual ones; the gates that train share one process, which ends with the tests."""
    from podproof.harness.surroundings import surroundings
    from podproof.harness.warm import WarmTrainer

    if _WARM not in config.stash:
        config.stash[_WARM] = WarmTrainer()
        config.add_cleanup(config.stash[_WARM].close)
    return replace(surroundings(), warm=config.stash[_WARM])


class ExperimentFile(pytest.File):
    """One experiment; it is compiled when the first of its gates is asked."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield a test for each gate, in order."""
        from podproof.compiler.schema import GATE_IDS

        for gate in GATE_IDS:
            yield GateItem.from_parent(self, name=gate)

    @cached_property
    def request(self) -> Request:
        """Return how the experiment is asked for."""
        from podproof.harness.experiments import experiment_of

        config_dir = self.config.getoption("--podproof-config-dir")
        level: str | None = self.config.getoption("--podproof-level")
        folder = Path(config_dir) if config_dir else None
        return experiment_of(self.path).request(config_dir=folder, level=level)

    @cached_property
    def compiled(self) -> PodScript | BadConfig:
        """Return the script, or why there is none."""
        from podproof.compiler.errors import BadConfig
        from podproof.compiler.lower import lower
        from podproof.compiler.read import read
        from podproof.compiler.script import compile_run

        try:
            return compile_run(lower(read(self.request)))
        except BadConfig as error:
            return error

    def verdict(self, gate: str) -> GateVerdict:
        """Ask one gate; skip when the config gate has refused, and another one is asked."""
        from podproof.compiler.ir import PodScript
        from podproof.harness.gates import refused_config, verdict_of

        if isinstance(self.compiled, PodScript):
            return verdict_of(gate, self.compiled, _surroundings(self.config))
        if gate != "config":
            pytest.skip("no script: the config gate refused")
        return refused_config(self.compiled).verdicts[0]


class GateItem(pytest.Item):
    """One gate asked about one experiment."""

    parent: ExperimentFile

    def runtest(self) -> None:
        """Pass, skip with the reason, or raise GateRefused with every problem."""
        from podproof.harness.judgement import placed
        from podproof.harness.verdict import Outcome

        verdict = self.parent.verdict(self.name)
        if verdict.outcome is Outcome.SKIPPED:
            pytest.skip(verdict.summary)
        if verdict.outcome is Outcome.REFUSED:
            problems = placed(verdict.problems, self.parent.request)
            raise GateRefused("\n\n".join(map(str, problems)))

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Show a refusal as it is, without the traceback that no user has a use for."""
        if isinstance(excinfo.value, GateRefused):
            return f"the {self.name} gate refused {self.path.name}\n\n{excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return the file, no line, and what pytest calls this test."""
        return self.path, None, f"{self.path.stem}: gate {self.name}"
