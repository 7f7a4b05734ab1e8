"""The experiments of a folder or a file: which there are, and how each is asked for."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from podproof.compiler.errors import BadConfig
from podproof.compiler.folders import GROUP, config_file, quoted
from podproof.compiler.places import shown_path
from podproof.compiler.read import Request
from podproof.harness.judgement import Judgement, judgement, verify_request
from podproof.harness.verdict import Level, Surroundings
from podproof.runtime.errors import Problem


@dataclass(frozen=True)
class Experiment:
    """One file that stands for a run: its name as in experiment=NAME, and the folder it is in."""

    name: str
    file: Path
    folder: Path

    def request(
        self,
        overrides: Iterable[str] = (),
        config_dir: Path | None = None,
        level: str | None = None,
    ) -> Request:
        """Return what a person would type for it; overrides keep their places, the level is last.

        The groups beside the folder are the user's own configs, unless `config_dir` names others.
        """
        last = [] if level is None else [f"gates.level={level}"]
        beside = self.folder.parent if self.folder.name == GROUP else None
        typed = (*overrides, f"{GROUP}={quoted(self.name)}", *last)
        return Request(typed, config_dir or beside, self.folder)


@dataclass(frozen=True)
class Order:
    """How every experiment of a batch is asked: with these overrides, configs, level and places."""

    within: Surroundings
    overrides: tuple[str, ...] = ()
    config_dir: Path | None = None
    level: Level | None = None

    def judge(self, experiment: Experiment) -> Judgement:
        """Ask the gates about one experiment."""
        request = experiment.request(self.overrides, self.config_dir, self.level)
        result = verify_request(request, self.within)
        return judgement(experiment.name, shown_path(experiment.file), result)


def experiments_in(folder: Path) -> tuple[Experiment, ...]:
    """Return the experiments of a folder of YAML files, or of its folder `experiment`, by name.

    Files whose name begins with an underscore are parts of others. Raise BadConfig for a folder
    that is not there, holds none, or holds files that Hydra would not see.
    """
    if not folder.is_dir():
        raise BadConfig(Problem("--all", f"{folder} is not a folder", "create it, or fix the path"))
    below = folder / GROUP
    group = below if below.is_dir() else folder
    unseen = sorted(group.rglob("*.yml"))
    if unseen:
        way_out = "rename it to .yaml, which is what Hydra reads"
        raise BadConfig(
            *[Problem(shown_path(file), "would not be seen", way_out) for file in unseen]
        )
    found = (Experiment(_name(file, group), file, group) for file in sorted(group.rglob("*.yaml")))
    experiments = tuple(item for item in found if not is_part(item.file))
    if not experiments:
        what = f"{folder} holds no experiment"
        raise BadConfig(Problem("--all", what, "give a folder of YAML files, one for each run"))
    return experiments


def experiment_of(file: Path) -> Experiment:
    """Return the experiment in one file; its group is the folder `experiment` it is in, or its own.

    Raise BadConfig for a file that is not there or is no .yaml.
    """
    if not file.is_file():
        raise BadConfig(Problem(str(file), "is not a file", "give the path of an experiment"))
    if file.suffix != ".yaml":
        what = f"is no .yaml but a {file.suffix or 'file without an ending'}"
        raise BadConfig(Problem(str(file), what, "rename it; Hydra reads .yaml only"))
    groups = [folder for folder in file.absolute().parents if folder.name == GROUP]
    group = groups[0] if groups else file.absolute().parent
    return Experiment(_name(file.absolute(), group), file, group)


def is_part(file: Path) -> bool:
    """Tell whether a file is a part of other experiments, and no run by itself.

    >>> is_part(Path("experiment/_base.yaml"))
    True
    """
    return file.name.startswith("_")


def file_of_request(request: Request) -> Path:
    """Return the file to look into first: that of the experiment asked for, else config.yaml.

    The last `experiment=` counts, as with Hydra.
    """
    chosen = [text.partition("=")[2].strip("'\"") for text in request.overrides if _chooses(text)]
    paths = [f"{GROUP}/{name}" for name in reversed(chosen)] + ["config"]
    files = (config_file(path, request.config_dir, request.experiment_dir) for path in paths)
    return next(file for file in files if file is not None)


def _chooses(override: str) -> bool:
    return override.lstrip("+").startswith(f"{GROUP}=")


def _name(file: Path, group: Path) -> str:
    return file.relative_to(group).with_suffix("").as_posix()
