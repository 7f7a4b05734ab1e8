"""Seal checkpoints: a thread writes down each one's hashes while training goes on."""

import queue
import threading
from pathlib import Path

from podproof.runtime.checkpoints import MANIFEST_FILE, write_manifest
from podproof.runtime.events import EventKind
from podproof.runtime.reporter import Report


class CheckpointSealer:
    """Writes manifests in a thread of its own: hashing reads all of a checkpoint once more.

    The training waits for it in two places only: before a checkpoint is written over, and at the
    end of the run.
    """

    def __init__(self, report: Report) -> None:
        """Start the thread; `report` hears of checkpoints that could not be sealed."""
        self._report = report
        self._waiting: queue.Queue[Path | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="podproof-sealer", daemon=True)
        self._thread.start()

    def seal(self, checkpoint: Path) -> None:
        """Have the manifest written, soon; a checkpoint that has one is left alone."""
        self._waiting.put(checkpoint)

    def break_seal(self, checkpoint: Path) -> None:
        """Wait for the thread, then take the manifest away: the checkpoint will be written anew."""
        if checkpoint.exists():
            self._waiting.join()
            (checkpoint / MANIFEST_FILE).unlink(missing_ok=True)

    def close(self, timeout_s: float | None) -> None:
        """Seal what waits, for so long at most (None: to its end), and stop.

        What is not sealed by then can be resumed from all the same, its bytes unverified.
        """
        self._waiting.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while (checkpoint := self._waiting.get()) is not None:
            try:
                if not (checkpoint / MANIFEST_FILE).exists():
                    write_manifest(checkpoint)
            except OSError as error:
                self._tell(checkpoint, error)
            finally:
                self._waiting.task_done()

    def _tell(self, checkpoint: Path, error: OSError) -> None:
        # The trainer deletes old checkpoints, also while they are read; that is no failure.
        if checkpoint.exists():
            what = f"{checkpoint.name} could not be sealed: {error}"
            self._report(EventKind.NOTICE, body={"what": what, "count": 1})
