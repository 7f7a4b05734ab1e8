"""Rules about the data: keys that only a dataset on the hub has."""

from collections.abc import Iterator

from podproof.compiler.schema import Config
from podproof.runtime.errors import Problem
from podproof.runtime.plan import DataPlan, DataSource

_HUB_KEYS = ("name", "revision", "split")


def hub_only(config: Config) -> Iterator[Problem]:
    """Refuse what a file does not have and nobody would read, a misspelt split for one."""
    data, usual = config.data, DataPlan()
    if data.source is DataSource.HUB:
        return
    for key in _HUB_KEYS:
        value, default = getattr(data, key), getattr(usual, key)
        if value != default:
            what = f"only a hub dataset has one, and source={data.source.value} is a file"
            way_out = f"set data.{key}={default or 'null'}, or data.source=hub"
            yield Problem(f"data.{key}", f"{what}; got {value!r}", way_out)
