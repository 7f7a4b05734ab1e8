"""Run the boot program, and crash at its n-th touch of the volume: crashing_boot.py BOOT HOW N.

HOW is `kill` (the process is gone) or `fail` (the disk refuses). A touch is a file opened, renamed
or made below the run's folder, or a process started; N counts from 0.
"""

import errno
import itertools
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

TOUCHES = {"open", "os.rename", "os.mkdir", "subprocess.Popen"}


def main() -> None:
    boot, how, crash_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
    folder = str(Path(os.environ["PODPROOF_VOLUME"], os.environ["PODPROOF_RUN_ID"]))
    touches = itertools.count()

    def crash_when_due(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in TOUCHES or not is_ours(event, arguments, folder):
            return
        if next(touches) != crash_at:
            return
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, "No space left on device")

    sys.addaudithook(crash_when_due)
    runpy.run_path(boot, run_name="__main__")


def is_ours(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    return event == "subprocess.Popen" or str(arguments[0]).startswith(folder)


if __name__ == "__main__":
    main()
