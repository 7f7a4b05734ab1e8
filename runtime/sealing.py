"""Seal checkpoints: a thread writes down each one's hashes while training goes on."""

import threading
import time
from pathlib import Path

from podproof.runtime.checkpoints import MANIFEST_FILE, write_manifest
from podproof.runtime.events import EventKind
from podproof.runtime.reporter import Report


class CheckpointSealer:
    """Writes manifests in threads of their own: hashing reads all of a checkpoint once more.

    The training waits for them in two places only: before a checkpoint is written over, and at
    the end of the run.
    """

    def __init__(self, report: Report) -> None:
        """Take the function that is told of checkpoints that could not be sealed."""
        self._report = report
        self._threads: list[threading.Thread] = []

    def seal(self, checkpoint: Path) -> None:
        """Have the manifest written, soon; a checkpoint that has one is left alone."""
        thread = threading.Thread(
            target=self._seal, args=(checkpoint,), name="podproof-sealer", daemon=True
        )
        thread.start()
        self._threads = [*filter(threading.Thread.is_alive, self._threads), thread]

    def break_seal(self, checkpoint: Path) -> None:
        """Wait for the threads, then take the manifest away: it will be written anew."""
        if checkpoint.exists():
            self.close(None)
            (checkpoint / MANIFEST_FILE).unlink(missing_ok=True)

    def close(self, timeout_s: float | None) -> None:
        """Wait until all is sealed, for so long at most (None: to the end).

        What is not sealed by then can be resumed from all the same, its bytes unverified.
        """
        end_s = time.monotonic() + (timeout_s or 0.0)
        for thread in self._threads:
            thread.join(None if timeout_s is None else max(0.0, end_s - time.monotonic()))

    def _seal(self, checkpoint: Path) -> None:
        try:
            if not (checkpoint / MANIFEST_FILE).exists():
                write_manifest(checkpoint)
        except OSError as error:
            # The trainer deletes old checkpoints, also while they are read; that is no failure.
            if checkpoint.exists():
                what = f"{checkpoint.name} could not be sealed: {error}"
                self._report(EventKind.NOTICE, body={"what": what, "count": 1})
