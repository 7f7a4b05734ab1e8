"""Where the gates look when nobody says: this folder, the examples that ship, and our home."""

import os
from pathlib import Path

from podproof.harness.verdict import Surroundings


def surroundings() -> Surroundings:
    """Return what the gates may look at: data here and in the shipped examples, and our home."""
    return Surroundings(data_roots(), home())


def data_roots() -> tuple[Path, ...]:
    """Return where data files are looked up: here, then in the examples that ship with podproof."""
    import podproof

    return (Path.cwd(), Path(podproof.__file__).parent)


def home() -> Path:
    """Return the folder of the store, the local pods and the volumes.

    PODPROOF_HOME if set, else the platform's folder for user data.
    """
    chosen = os.environ.get("PODPROOF_HOME")
    if chosen:
        return Path(chosen).expanduser().resolve()
    from platformdirs import user_data_path

    return user_data_path("podproof")
