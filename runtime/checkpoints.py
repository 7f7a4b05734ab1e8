"""Checkpoints on disk: which can be resumed from, and which one is the chosen one.

The trainer writes straight into checkpoint-N, so a kill can leave anything there, and resuming
from a damaged one either ends the run or, with the optimizer or scheduler missing, silently
restarts the learning-rate schedule. So a checkpoint is looked at before it is used.
"""

import hashlib
import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

from podproof.runtime.errors import NoUsableCheckpoint, Problem

WEIGHT_FILES = ("model.safetensors", "adapter_model.safetensors", "model.safetensors.index.json")


def list_checkpoints(output: Path) -> tuple[Path, ...]:
    """Return the checkpoint folders under `output`, by step, lowest first."""
    found = [path for path in output.glob("checkpoint-*") if checkpoint_step(path) is not None]
    return tuple(sorted(found, key=lambda path: checkpoint_step(path) or 0))


def checkpoint_step(path: Path) -> int | None:
    """Return N of a folder called checkpoint-N; None for any other name."""
    match = re.fullmatch(r"checkpoint-(\d+)", path.name)
    return int(match.group(1)) if match else None


def checkpoint_damage(path: Path) -> str | None:
    """Say why a run cannot be resumed from this checkpoint; None when nothing speaks against it.

    Checked are the files a silent restart would lack, that the trainer's state parses, that what
    torch saved has the directory that it writes last, and the weights as in `weights_damage`.
    """
    for name in ("trainer_state.json", "optimizer.pt", "scheduler.pt"):
        if not (path / name).is_file() or (path / name).stat().st_size == 0:
            return f"{name} is missing or empty"
    if not isinstance(_checkpoint_json(path / "trainer_state.json"), dict):
        return "trainer_state.json is broken"
    for saved in sorted((*path.glob("*.pt"), *path.glob("*.pth"))):
        if not zipfile.is_zipfile(saved):
            return f"{saved.name} is cut short"
    return weights_damage(path)


def weights_damage(path: Path) -> str | None:
    """Say why the weights in a folder cannot be loaded; None when nothing speaks against it.

    Each safetensors file must be as long as its own header says, and each file that an index
    names must be there. Bytes changed in place are not noticed: the format has no checksum.
    """
    if not any((path / name).is_file() for name in WEIGHT_FILES):
        return "no weights"
    for index in sorted(path.glob("*.safetensors.index.json")):
        fields = _checkpoint_json(index)
        if not isinstance(fields, dict) or not isinstance(fields.get("weight_map"), dict):
            return f"{index.name} is broken"
        for name in sorted(set(map(str, fields["weight_map"].values()))):
            if not (path / name).is_file():
                return f"{name} is missing"
    return next(filter(None, map(_safetensors_damage, sorted(path.glob("*.safetensors")))), None)


def newest_usable_checkpoint(output: Path) -> tuple[Path | None, tuple[str, ...]]:
    """Return the newest undamaged checkpoint, moving damaged newer ones out of the way.

    The second value says, for each one moved to `output/quarantine`, what was wrong with it.
    Moving matters: the trainer's own rotation and best-model search count every folder they see.
    """
    notices: list[str] = []
    for path in reversed(list_checkpoints(output)):
        damage = checkpoint_damage(path)
        if damage is None:
            return path, tuple(notices)
        _quarantine(path)
        notices.append(f"{path.name} set aside: {damage}")
    return None, tuple(notices)


def chosen_checkpoint(output: Path, step: int | None) -> Path:
    """Return the folder of the checkpoint chosen at `step`, or the last one if None was scored.

    Raise NoUsableCheckpoint when it is not there.
    """
    if step is not None:
        path = output / f"checkpoint-{step}"
        if path.is_dir():
            return path
        raise NoUsableCheckpoint(
            Problem(
                str(path), "the best checkpoint is not on disk", "raise trainer.save_total_limit"
            )
        )
    checkpoints = list_checkpoints(output)
    if not checkpoints:
        raise NoUsableCheckpoint(Problem(str(output), "no checkpoint was saved"))
    return checkpoints[-1]


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _quarantine(path: Path) -> None:
    place = path.parent / "quarantine"
    place.mkdir(exist_ok=True)
    target = place / path.name
    shutil.rmtree(target, ignore_errors=True)
    os.replace(path, target)


_LENGTH_BYTES = 8


def _safetensors_damage(path: Path) -> str | None:
    # The format: the header's length in little-endian bytes, a JSON header whose entries carry
    # data_offsets relative to its end, then the data.
    size = path.stat().st_size
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if header_size > size - _LENGTH_BYTES:
            return f"{path.name} is cut short"
        header = _checkpoint_parsed(file.read(header_size))
    if not isinstance(header, dict):
        return f"{path.name} has a broken header"
    ends = [_safetensors_end(entry) for key, entry in header.items() if key != "__metadata__"]
    if None in ends:
        return f"{path.name} has a broken header"
    if _LENGTH_BYTES + header_size + max((end or 0 for end in ends), default=0) != size:
        return f"{path.name} is cut short"
    return None


def _safetensors_end(entry: Any) -> int | None:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    is_pair = isinstance(offsets, list) and [type(item) for item in offsets] == [int, int]
    return offsets[1] if is_pair and offsets is not None else None


def _checkpoint_json(path: Path) -> Any:
    return _checkpoint_parsed(path.read_bytes())


def _checkpoint_parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
