"""The store: every launch, every event, and what follows from them.

Any number of processes and threads may use one store at once. Each method is one transaction.
"""

import difflib
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import URL, Connection, Update, select, update

from podproof.compiler.approvals import Approval
from podproof.compiler.throughput import PastRun
from podproof.monitor.database import Database
from podproof.monitor.errors import StoreUnavailable, UnknownRun
from podproof.monitor.ingest import (
    add_row,
    ingest_events,
    put_rows,
    read_events,
    read_launch,
    read_past_runs,
    read_record,
    refresh_job,
)
from podproof.monitor.records import LaunchRecord, LaunchStatus, RunRecord, RunSummary
from podproof.monitor.rows import approval_of, approval_row, launch_of, launch_row, summary_of
from podproof.monitor.tables import (
    APPROVALS,
    ESTIMATES,
    LAUNCHES,
    REPORT_TOKENS,
    TRAINING_JOBS,
)
from podproof.runtime.errors import Problem
from podproof.runtime.events import Event, EventKind, strict_json


def open_store(path_or_url: str | Path) -> "Store":
    """Open the store at a path, its folders made where missing, or at a database URL.

    Raises StoreUnavailable.
    """
    if "://" in str(path_or_url):
        return Store(str(path_or_url))
    path = Path(path_or_url).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = Problem(str(path), f"its folder cannot be made: {error}", "name another path")
        raise StoreUnavailable(problem) from error
    return Store(URL.create("sqlite", database=str(path)))


class Store:
    """What is remembered; a context manager that closes itself.

    Every method raises StoreUnavailable when the database is locked, full, read-only or gone.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        busy_timeout_s: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the database; wait up to `busy_timeout_s` whenever another process writes."""
        self._database = Database(url, busy_timeout_s=busy_timeout_s)
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection of this process."""
        self._database.close()

    # --- events ---

    def ingest(self, events: Iterable[Event]) -> int:
        """Keep the events and bring their runs up to date; return how many were new.

        All of them are kept, or none. Events may come late, twice, and in any order.
        """
        with self._database.writing() as connection:
            return ingest_events(connection, events)

    def run(self, run_id: str) -> RunRecord:
        """Return all that is known of the run; raise UnknownRun with the ids that come close."""
        with self._database.reading() as connection:
            job = select(TRAINING_JOBS.c.id).where(TRAINING_JOBS.c.id == run_id)
            if connection.scalar(job) is None:
                raise _unknown_run(connection, run_id)
            return read_record(connection, run_id)

    def events(self, run_id: str, kinds: Iterable[EventKind]) -> tuple[Event, ...]:
        """Return the run's events of these kinds as they happened; none for an unknown run."""
        with self._database.reading() as connection:
            return tuple(read_events(connection, run_id, kinds))

    def runs(self) -> tuple[RunSummary, ...]:
        """Return one line for each run, the newest first."""
        newest = TRAINING_JOBS.c.created_unix_s.desc().nulls_last(), TRAINING_JOBS.c.id
        with self._database.reading() as connection:
            launches = {launch.run_id: launch for launch in _launches(connection)}
            jobs = connection.execute(select(TRAINING_JOBS).order_by(*newest))
            return tuple(summary_of(job._asdict(), launches.get(job.id)) for job in jobs)

    # --- launches ---

    def intend_launch(self, launch: LaunchRecord) -> LaunchRecord:
        """Write the launch down before any pod is asked for; return the one that stands.

        A run has one launch: when there is one already, it stands unchanged.
        """
        with self._database.writing() as connection:
            add_row(connection, LAUNCHES, launch_row(launch))
            refresh_job(connection, launch.run_id)
            return _launch(connection, launch.run_id)

    def record_pod(self, run_id: str, pod_id: str, cost_usd_per_h: float | None) -> None:
        """Note the pod of a launch; one that has ended stays so, but its pod is known."""
        with self._database.writing() as connection:
            launch = _launch(connection, run_id)
            has_ended = launch.status is LaunchStatus.ENDED
            status = LaunchStatus.ENDED if has_ended else LaunchStatus.CREATED
            cost = launch.cost_usd_per_h if cost_usd_per_h is None else cost_usd_per_h
            connection.execute(
                _of_launch(run_id).values(pod_id=pod_id, status=status.value, cost_usd_per_h=cost)
            )
            refresh_job(connection, run_id)

    def end_launch(self, run_id: str, reason: str) -> None:
        """Note that there is no pod any more, and why; only the first end of a launch counts."""
        with self._database.writing() as connection:
            if _launch(connection, run_id).status is LaunchStatus.ENDED:
                return
            end = {"status": LaunchStatus.ENDED.value, "ended_unix_s": self._clock()}
            connection.execute(_of_launch(run_id).values(**end, reason=reason))
            refresh_job(connection, run_id)

    def launch(self, run_id: str) -> LaunchRecord:
        """Return the launch of a run; raise UnknownRun if it was not launched from here."""
        with self._database.reading() as connection:
            return _launch(connection, run_id)

    def launches(self) -> tuple[LaunchRecord, ...]:
        """Return every launch, the oldest first."""
        with self._database.reading() as connection:
            return _launches(connection)

    def request_stop(self, run_id: str) -> None:
        """Ask whoever watches the run to end its pod; raise UnknownRun."""
        with self._database.writing() as connection:
            _launch(connection, run_id)
            connection.execute(_of_launch(run_id).values(stop_requested=True))
            refresh_job(connection, run_id)

    def is_stop_requested(self, run_id: str) -> bool:
        """Tell whether the run is to be ended; raise UnknownRun."""
        return self.launch(run_id).stop_requested

    # --- estimates ---

    def record_estimate(self, run_id: str, body: Mapping[str, Any]) -> None:
        """Note what was estimated of a run at its launch, in place of what was noted before."""
        with self._database.writing() as connection:
            row = {"run_id": run_id, "body": strict_json(body)}
            put_rows(connection, ESTIMATES, ("run_id",), [row])

    def past_runs(self) -> tuple[PastRun, ...]:
        """Return what runs got done in a second, of the newest that were launched from here."""
        with self._database.reading() as connection:
            return tuple(read_past_runs(connection))

    # --- approvals ---

    def record_approval(self, approval: Approval) -> None:
        """Keep the approval; a second one of the same script is kept too."""
        with self._database.writing() as connection:
            connection.execute(APPROVALS.insert().values(**approval_row(approval)))

    def approvals(self) -> tuple[Approval, ...]:
        """Return every approval, the oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(select(APPROVALS).order_by(APPROVALS.c.approval_id))
            return tuple(approval_of(row._asdict()) for row in rows)

    # --- tokens ---

    def register_token(self, run_id: str, token_sha256: str) -> None:
        """Let the owner of this token report for the run, and no owner of an earlier one."""
        with self._database.writing() as connection:
            row = {"job_id": run_id, "token_sha256": token_sha256.lower()}
            put_rows(connection, REPORT_TOKENS, ("job_id",), [row])

    def token_matches(self, run_id: str, token: str) -> bool:
        """Tell whether the token may report for the run, in a time that gives nothing away."""
        presented = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        wanted = select(REPORT_TOKENS.c.token_sha256).where(REPORT_TOKENS.c.job_id == run_id)
        with self._database.reading() as connection:
            registered = connection.scalar(wanted)
        return hmac.compare_digest(presented, registered or "0" * 64) and registered is not None


def _launches(connection: Connection) -> tuple[LaunchRecord, ...]:
    oldest = LAUNCHES.c.intended_unix_s, LAUNCHES.c.run_id
    rows = connection.execute(select(LAUNCHES).order_by(*oldest))
    return tuple(launch_of(row._asdict()) for row in rows)


def _launch(connection: Connection, run_id: str) -> LaunchRecord:
    launch = read_launch(connection, run_id)
    if launch is None:
        raise _unknown_run(connection, run_id)
    return launch


def _of_launch(run_id: str) -> Update:
    return update(LAUNCHES).where(LAUNCHES.c.run_id == run_id)


def _unknown_run(connection: Connection, run_id: str) -> UnknownRun:
    known = list(connection.scalars(select(TRAINING_JOBS.c.id)))
    begins = [known_id for known_id in known if run_id and known_id.startswith(run_id)]
    close = begins if len(begins) == 1 else difflib.get_close_matches(run_id, known, n=3)
    way_out = f"did you mean {' or '.join(close)}?" if close else "list the runs to see their ids"
    return UnknownRun(Problem(f"run {run_id!r}", "is not in the store", way_out))
