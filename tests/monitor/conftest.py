from collections.abc import Iterator
from pathlib import Path

import pytest

from podproof.monitor.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "runs.db") as store:
        yield store
