"""Delivery: the chosen checkpoint becomes a folder that loads by itself, with a card that says why.

A run is over when its weights lie where they were asked for. What was delivered is kept in
`delivery.json`, so that a start after the training only does what is left to do.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from podproof.runtime.checkpoints import (
    checkpoint_step,
    chosen_checkpoint,
    file_sha256,
    is_delivered,
    weights_damage,
)
from podproof.runtime.errors import NoUsableCheckpoint, Problem
from podproof.runtime.events import EventKind
from podproof.runtime.model_card import MODEL_CARD, TrainingFacts, model_card
from podproof.runtime.plan import Plan, PublishTo, Resume
from podproof.runtime.reader import read_section
from podproof.runtime.readings import usable_loss
from podproof.runtime.reporter import Report
from podproof.runtime.scorer import SCORE_KEY

DELIVERY_FILE = "delivery.json"


@dataclass(frozen=True)
class DeliveryRecord:
    """How training ended and what was delivered of it: the content of `delivery.json`.

    `ending` is the kind of event that ends the run, `reason` why it is not done. `best_step` is
    the scorer's choice, `step` that of the weights. `path` is absent with publish.to=none; `sha256`
    has every file there.
    """

    config_sha256: str
    ending: EventKind
    reason: str | None
    final_step: int
    best_step: int | None
    best_score: float | None
    step: int
    checkpoint: str
    path: str | None
    sha256: dict[str, str]

    def ending_body(self, published: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the body of the event that ends the run."""
        return {
            "best_step": self.best_step,
            "best_score": self.best_score,
            "checkpoint": self.checkpoint,
            "delivered": self.path,
            "published": published,
            "final_step": self.final_step,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class TrainingEnding:
    """How training ended: the kind of event, why it is not `done`, and the score of the best."""

    kind: EventKind
    reason: str | None
    best_score: float


def former_delivery(plan: Plan, output: Path) -> DeliveryRecord | None:
    """Return what an earlier start of the run delivered at its end; None unless all is there."""
    record = _delivery_record(output / DELIVERY_FILE)
    is_ours = record is not None and record.config_sha256 == plan.config_sha256
    if record is None or not is_ours or plan.recovery.resume is Resume.NEVER:
        return None
    # One that ran out of time goes on training, for this start may have more of it.
    is_final = record.ending in {EventKind.DONE, EventKind.STOPPED_EARLY}
    return record if is_final and _is_all_there(record) else None


def _delivery_record(path: Path) -> DeliveryRecord | None:
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    problems: list[Problem] = []
    record = read_section(DeliveryRecord, fields, DELIVERY_FILE, problems)
    return None if problems else record


def _is_all_there(record: DeliveryRecord) -> bool:
    folder = Path(record.path or record.checkpoint)
    if record.path is None or not folder.is_dir():
        return record.path is None and folder.is_dir()
    files = {path.name: path for path in folder.iterdir()}
    return files.keys() == record.sha256.keys() and all(
        file_sha256(files[name]) == digest for name, digest in record.sha256.items()
    )


def deliver_best(
    plan: Plan,
    output: Path,
    facts: TrainingFacts,
    ending: TrainingEnding,
    notice: Callable[[str], None],
) -> DeliveryRecord:
    """Deliver the checkpoint with the best score, or the last one of a run without evaluations.

    When it is damaged or gone, the next best is delivered, and `notice` is told. What was
    delivered is written down. Raise NoUsableCheckpoint.
    """
    if facts.best_step is None and plan.arguments.get("load_best_model_at_end"):
        what = "no evaluation had a usable loss"
        raise NoUsableCheckpoint(
            Problem(ending.reason or "evaluation", what, "look at the train log")
        )
    checkpoint, notices = chosen_checkpoint(output, _ranking(facts))
    for what in notices:
        notice(what)
    step = checkpoint_step(checkpoint) or 0
    folder = None if plan.publish.to is PublishTo.NONE else output / plan.publish.dir
    card, is_rescue = model_card(plan, facts, step), ending.kind is EventKind.FAILED
    digests = {} if folder is None else deliver(checkpoint, folder, card, links=is_rescue)
    record = DeliveryRecord(
        config_sha256=plan.config_sha256,
        ending=ending.kind,
        reason=ending.reason,
        final_step=facts.final_step,
        best_step=facts.best_step,
        best_score=None if facts.best_step is None else ending.best_score,
        step=step,
        checkpoint=str(checkpoint),
        path=None if folder is None else str(folder),
        sha256=digests,
    )
    write_durably(output / DELIVERY_FILE, json.dumps(asdict(record), indent=2).encode())
    return record


def report_delivery(record: DeliveryRecord, report: Report) -> None:
    """Say where the weights are, unless they were to stay in their checkpoint."""
    if record.path is not None:
        body = {"path": record.path, "step": record.step, "sha256": record.sha256}
        report(EventKind.DELIVERED, step=record.step, body=body)


def deliver(
    checkpoint: Path, destination: Path, card: str, *, links: bool = False
) -> dict[str, str]:
    """Copy a checkpoint's weights, tokenizer and configs, add the card; return each file's sha256.

    The copy is made beside `destination`, flushed to the disk, read back, and moved into place in
    one step, so a `destination` that exists is always whole: after a kill, and on a network volume
    also after the end of the pod. With `links` the files are not copied where the disk has links,
    which need no room: for a run that trains no further. Raise NoUsableCheckpoint if the weights
    cannot be loaded, or if a copy differs.
    """
    damage = weights_damage(checkpoint)
    if damage is not None:
        way_out = "an earlier checkpoint may be whole; look into the run's output"
        raise NoUsableCheckpoint(Problem(str(checkpoint), damage, way_out))
    files = sorted(
        path for path in checkpoint.iterdir() if path.is_file() and is_delivered(path.name)
    )
    unfinished = destination.with_name(destination.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    place = _link if links else _copy_durably
    digests = {path.name: place(path, unfinished / path.name) for path in files}
    write_durably(unfinished / MODEL_CARD, card.encode())
    digests[MODEL_CARD] = file_sha256(unfinished / MODEL_CARD)
    flush_to_disk(unfinished)
    _put_in_place(unfinished, destination)
    flush_to_disk(destination.parent)
    return dict(sorted(digests.items()))


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after the machine is gone."""
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_bytes(content)
    flush_to_disk(draft)
    os.replace(draft, path)
    flush_to_disk(path.parent)


def flush_to_disk(path: Path) -> None:
    """Return when the disk, or the server of a network volume, has the file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder, and say so by these two.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP} or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _ranking(facts: TrainingFacts) -> list[int]:
    """Return the steps of all usable evaluations, the best first, ties to the earlier."""
    scored = [entry for entry in facts.log_history if SCORE_KEY in entry]
    scores = {entry["step"]: usable_loss(entry[SCORE_KEY]) for entry in scored}
    usable = {step: score for step, score in scores.items() if score is not None}
    return sorted(usable, key=lambda step: (step != facts.best_step, -usable[step], step))


def _link(source: Path, target: Path) -> str:
    try:
        os.link(source, target)
    except OSError:
        return _copy_durably(source, target)
    return file_sha256(target)


def _copy_durably(source: Path, target: Path) -> str:
    shutil.copyfile(source, target)
    flush_to_disk(target)
    digest = file_sha256(source)
    if file_sha256(target) != digest:
        raise NoUsableCheckpoint(
            Problem(str(source), "the delivered copy differs", "check the disk")
        )
    return digest


def _put_in_place(unfinished: Path, destination: Path) -> None:
    # A folder cannot replace one that holds files, and emptying that one takes time in which it
    # would exist and not be whole. So the old one steps aside by its name first.
    former = destination.with_name(destination.name + ".former")
    shutil.rmtree(former, ignore_errors=True)
    if destination.exists():
        os.replace(destination, former)
    os.replace(unfinished, destination)
    shutil.rmtree(former, ignore_errors=True)
