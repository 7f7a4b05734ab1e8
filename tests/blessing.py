"""Goldens: whole outputs kept in files, renewed by `make bless` and read in the diff."""

import os
from pathlib import Path


def golden(path: Path, text: str) -> str:
    """Return the golden text; with PODPROOF_BLESS=1 it is what there is now."""
    if os.environ.get("PODPROOF_BLESS") == "1":
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")
