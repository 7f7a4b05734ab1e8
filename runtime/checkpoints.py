"""Checkpoints on disk: which can be resumed from, and which one is the chosen one.

The trainer writes straight into checkpoint-N, so a kill can leave anything there, and resuming
from a damaged one either ends the run or, with the optimizer or scheduler missing, silently
restarts the learning-rate schedule. So a checkpoint is looked at before it is used. A sealed one
has a manifest, the size and sha256 of each of its files, and is compared with it byte for byte.
"""

import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from podproof.runtime.errors import NoUsableCheckpoint, Problem

MANIFEST_FILE = "podproof.json"
# Under this name the trainer's state says of which run it is, and what a resumed run must make up.
CHECKPOINT_RECORD = "podproof"

# What a silent restart would lack: one of each. Adam's state is optimizer.bin under FSDP; DeepSpeed
# writes `latest` when its own folder, which holds it, is whole.
_RESUME_FILES = (
    ("trainer_state.json",),
    ("optimizer.pt", "optimizer.bin", "latest"),
    ("scheduler.pt",),
)

# What a resumed trainer needs, and a user of the weights does not; and the libraries' own card.
_NOT_DELIVERED = re.compile(
    r"(optimizer|scheduler|scaler)\.(pt|bin)|rng_state.*\.pth|trainer_state\.json|training_args\.bin"
    r"|pytorch_model_fsdp\.bin|latest|zero_to_\w+\.py|podproof\.json(\.tmp)?|README\.md|.*/.*"
)

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
    torch saved has the directory that it writes last, the weights as in `weights_damage`, and the
    bytes as in `manifest_damage`.
    """
    for names in _RESUME_FILES:
        if not any((path / name).is_file() and (path / name).stat().st_size for name in names):
            return f"{names[0]} is missing or empty"
    if not isinstance(_checkpoint_json(path / "trainer_state.json"), dict):
        return "trainer_state.json is broken"
    for saved in sorted(item for item in path.iterdir() if item.suffix in {".pt", ".pth", ".bin"}):
        if not zipfile.is_zipfile(saved):
            return f"{saved.name} is cut short"
    return weights_damage(path) or manifest_damage(path)


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


def write_manifest(checkpoint: Path) -> None:
    """Seal a checkpoint: write down the size and sha256 of each file, whole or not at all."""
    files = {
        str(path.relative_to(checkpoint)): [path.stat().st_size, file_sha256(path)]
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and not path.name.startswith(MANIFEST_FILE)
    }
    draft = checkpoint / f"{MANIFEST_FILE}.tmp"
    draft.write_text(json.dumps({"files": files}))
    draft.replace(checkpoint / MANIFEST_FILE)


def is_delivered(name: str) -> bool:
    """Tell by its name in a checkpoint whether a file goes to the user of the weights.

    >>> is_delivered("tokenizer.json"), is_delivered("optimizer.pt"), is_delivered("folder/file")
    (True, False, False)
    """
    return not _NOT_DELIVERED.fullmatch(name)


def manifest_damage(checkpoint: Path, *, for_delivery: bool = False) -> str | None:
    """Say which file is not what it was when the checkpoint was sealed; None: all are, or no seal.

    Files that came later are not looked at, nor `for_delivery` those that are not delivered.
    """
    manifest = checkpoint / MANIFEST_FILE
    if not manifest.is_file():
        return None
    content = _checkpoint_json(manifest)
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        return f"{MANIFEST_FILE} is broken"
    for name, wanted in files.items():
        if for_delivery and not is_delivered(name):
            continue
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if [path.stat().st_size, file_sha256(path)] != wanted:
            return f"{name} is not what was saved"
    return None


def newest_usable_checkpoint(output: Path, config: str) -> tuple[Path | None, tuple[str, ...]]:
    """Return the newest undamaged checkpoint of the run of that config hash.

    Damaged newer ones, and those of another run, are moved to `output/quarantine`; the second
    value says for each what was wrong with it, and whether the one returned has no seal. Moving
    matters: the trainer's own rotation and best-model search count every folder they see.
    """
    notices: list[str] = []
    usable = None
    for path in reversed(list_checkpoints(output)):
        fault = _checkpoint_gap(path, usable) if usable else checkpoint_damage(path)
        if fault is None and checkpoint_owner(path) != config:
            fault = "it is not of this run"
        if fault is not None:
            notices.append(quarantine(path, fault))
        elif usable is None:
            usable = path
    if usable is not None and not (usable / MANIFEST_FILE).is_file():
        notices.append(f"{usable.name} has no manifest: whole by its structure, bytes unverified")
    return usable, tuple(notices)


def _checkpoint_gap(path: Path, whole: Path) -> str | None:
    """Say which file of a whole checkpoint of the same run is not in `path`; None if all are.

    The trainer removes old checkpoints file by file, the manifest among them, and a kill can leave
    anything of one: all that is needed to go on, and no tokenizer to deliver.
    """
    names, wanted = ({file.name for file in each.iterdir()} for each in (path, whole))
    wanted = wanted - _deepspeed_folder(whole) | _deepspeed_folder(path)
    lacking = {name for name in wanted - names if not name.startswith(MANIFEST_FILE)}
    return f"{min(lacking)} is missing" if lacking else None


def _deepspeed_folder(path: Path) -> set[str]:
    # Its name has the step, so no other checkpoint has it; the file `latest` says it.
    latest = path / "latest"
    return {latest.read_text(errors="replace").strip()} if latest.is_file() else set()


def checkpoint_owner(path: Path) -> str | None:
    """Return the config hash of the run that saved a checkpoint; None when it does not say."""
    state = path / "trainer_state.json"
    fields = _checkpoint_json(state) if state.is_file() else None
    callbacks = fields.get("stateful_callbacks") if isinstance(fields, dict) else None
    record = callbacks.get(CHECKPOINT_RECORD) if isinstance(callbacks, dict) else None
    return record.get("config_sha256") if isinstance(record, dict) else None


def quarantine(path: Path, fault: str) -> str:
    """Move a checkpoint to `quarantine` beside it; return a notice that says why."""
    place = path.parent / "quarantine"
    place.mkdir(exist_ok=True)
    target = place / path.name
    shutil.rmtree(target, ignore_errors=True)
    os.replace(path, target)
    return f"{path.name} set aside: {fault}"


def chosen_checkpoint(output: Path, steps: Sequence[int]) -> tuple[Path, tuple[str, ...]]:
    """Return the first sound checkpoint of `steps`, best first; the newest sound one of no steps.

    Sound is one whose files for delivery are: no run is resumed from it.
    The second value names those passed over, and why; damaged ones are moved to `quarantine`.
    Raise NoUsableCheckpoint when none is left.
    """
    paths = [output / f"checkpoint-{step}" for step in steps] or list_checkpoints(output)[::-1]
    notices: list[str] = []
    for path in paths:
        damage = "it is not on disk"
        if path.is_dir():
            damage = weights_damage(path) or manifest_damage(path, for_delivery=True) or ""
            if not damage:
                return path, tuple(notices)
            quarantine(path, damage)
        notices.append(f"{path.name} passed over, the next best is delivered: {damage}")
    way_out = "raise trainer.save_total_limit; look into the run's output and its quarantine"
    if not notices:
        notices = ["no checkpoint was saved"]
    raise NoUsableCheckpoint(*(Problem(str(output), what, way_out) for what in notices))


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
