"""The folders configs are looked up in: the user's experiments, their configs, those that ship."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

GROUP = "experiment"


def shipped_configs() -> Path:
    """Return the folder of the configs that ship with podproof."""
    return Path(str(resources.files("podproof.conf")))


def config_file(config_path: str, config_dir: Path | None, experiments: Path | None) -> Path | None:
    """Return the file of a config such as trainer/tiny; None for one that is in no file.

    `experiments` is a folder, by any name, that stands for the group `experiment`.
    """
    folders = [config_dir, shipped_configs()]
    files = [folder / f"{config_path}.yaml" for folder in folders if folder is not None]
    group, _, name = config_path.partition("/")
    if experiments is not None and group == GROUP:
        files.insert(0, experiments / f"{name}.yaml")
    return next((file for file in files if file.is_file()), None)


@contextmanager
def as_group(experiments: Path | None) -> Iterator[Path | None]:
    """Yield a folder in which the experiments stand under the name that Hydra knows them by."""
    if experiments is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / GROUP).symlink_to(experiments.resolve())
        yield Path(place)


def quoted(value: object) -> str:
    """Return a value as text that Hydra's overrides read as it stands."""
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
