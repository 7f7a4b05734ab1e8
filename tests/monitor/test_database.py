import gc
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from podproof.monitor.errors import StoreUnavailable
from podproof.monitor.store import Store, open_store
from podproof.runtime.events import Event, EventKind

EVENT = Event("run-a-1-0", "run-a", 1, 0, EventKind.STARTED, 0.0, None, None, {})


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def test_the_folders_of_a_store_are_made(tmp_path: Path) -> None:
    with open_store(tmp_path / "deep" / "down" / "runs.db") as store:
        assert store.runs() == ()


def test_a_path_with_odd_characters_is_only_a_path(tmp_path: Path) -> None:
    path = tmp_path / "50% of ?runs#.db"

    with open_store(path) as store:
        store.ingest([EVENT])

    assert path.exists()


def test_a_store_may_be_given_as_a_url(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path / 'runs.db'}") as store:
        assert store.ingest([EVENT]) == 1


def test_readers_go_on_while_another_process_writes(tmp_path: Path) -> None:
    with open_store(tmp_path / "runs.db") as store:
        store.ingest([EVENT])
        with locked(tmp_path / "runs.db"):
            assert store.run("run-a").run_id == "run-a"


def test_a_store_that_stays_locked_is_unavailable_and_works_again_later(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'runs.db'}", busy_timeout_s=0.05) as store:
        with locked(tmp_path / "runs.db"), pytest.raises(StoreUnavailable, match="kept it locked"):
            store.ingest([EVENT])

        assert store.ingest([EVENT]) == 1


def test_a_new_file_that_another_process_keeps_locked_cannot_be_opened(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"

    with locked(tmp_path / "runs.db"), pytest.raises(StoreUnavailable, match="kept it locked"):
        Store(url, busy_timeout_s=0.05)


def test_a_folder_is_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be opened") as caught:
        open_store(tmp_path)

    assert "way out: name a file in a folder that you may write" in str(caught.value)


def test_a_path_below_a_file_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreUnavailable, match="its folder cannot be made"):
        open_store(tmp_path / "file" / "runs.db")


def test_a_file_of_another_kind_is_not_a_store_and_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are my notes, not a database\n" * 100)

    with pytest.raises(StoreUnavailable, match="it is not an SQLite file"):
        open_store(tmp_path / "notes.txt")

    assert (tmp_path / "notes.txt").read_text().startswith("these are my notes")


def test_a_file_that_is_no_store_is_not_kept_open(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are my notes, not a database\n" * 100)
    gc.disable()
    try:
        before = len(list(Path("/dev/fd").iterdir()))
        with pytest.raises(StoreUnavailable):
            open_store(tmp_path / "notes.txt")

        assert len(list(Path("/dev/fd").iterdir())) == before
    finally:
        gc.enable()


def test_a_store_that_may_not_be_written_can_be_read_and_says_so(tmp_path: Path) -> None:
    with open_store(tmp_path / "runs.db") as store:
        store.ingest([EVENT])

    with open_store(f"sqlite:///file:{tmp_path / 'runs.db'}?mode=ro&uri=true") as store:
        assert store.run("run-a").run_id == "run-a"
        with pytest.raises(StoreUnavailable, match="it is read-only"):
            store.register_token("run-a", "0" * 64)


def test_a_full_disk_is_a_store_that_is_unavailable_and_loses_nothing(tmp_path: Path) -> None:
    script = f"""if True:
        import resource, signal
        from podproof.monitor.errors import StoreUnavailable
        from podproof.monitor.store import open_store
        from podproof.runtime.events import Event, EventKind
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = open_store({str(tmp_path / "runs.db")!r})
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, {resource.RLIM_INFINITY}))
        try:
            for seq in range(10_000):
                body = {{"what": "x" * 10_000}}
                event = Event(f"a-1-{{seq}}", "a", 1, seq, EventKind.NOTICE, 0.0, None, None, body)
                store.ingest([event])
        except StoreUnavailable as error:
            print(seq, error.problems[0].way_out)
    """

    output = subprocess.check_output([sys.executable, "-c", script], text=True)
    count, _, way_out = output.partition(" ")

    with open_store(tmp_path / "runs.db") as store:
        kept = store.run("a").notices[0].count
    assert "disk" in way_out
    assert kept == int(count) > 0


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_store_in_memory_is_refused(url: str) -> None:
    with pytest.raises(StoreUnavailable, match="seen by one thread only"):
        open_store(url)


@pytest.mark.parametrize("url", ["nonsense://there", "://", "oracle://there/runs"])
def test_a_url_of_no_database_we_know_is_refused(url: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"not the URL of a database|is not supported"):
        open_store(url)


def test_a_password_in_the_url_is_never_shown() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        open_store("postgresql+psycopg://me:hunter2@127.0.0.1:1/runs")

    assert "hunter2" not in str(caught.value)
