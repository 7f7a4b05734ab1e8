"""Where the gates look when nobody says: this folder, the examples that ship, and our home."""

import os
from pathlib import Path

from podproof.compiler.approvals import FOLDER_NAME
from podproof.harness.verdict import Surroundings


def surroundings() -> Surroundings:
    """Return what the gates may look at: data at hand, our home, and the approved scripts."""
    return Surroundings(data_roots(), home(), approved=approved_folder())


def data_roots() -> tuple[Path, ...]:
    """Return where data files are looked up: here, then in the examples that ship with podproof."""
    import podproof

    return (Path.cwd(), Path(podproof.__file__).parent)


def approved_folder() -> Path:
    """Return where approved scripts lie: PODPROOF_APPROVED, else a folder of that name here."""
    return Path(os.environ.get("PODPROOF_APPROVED") or FOLDER_NAME)


def home() -> Path:
    """Return the folder of the store, the local pods and the volumes.

    PODPROOF_HOME if set, else the platform's folder for user data.
    """
    chosen = os.environ.get("PODPROOF_HOME")
    if chosen:
        return Path(chosen).expanduser().resolve()
    from platformdirs import user_data_path

    return user_data_path("podproof")
