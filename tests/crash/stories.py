"""The whole story of a run: boot after boot in one folder until no restart would follow."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run
from podproof.runtime.boot import CODES_WITHOUT_RESTART
from podproof.runtime.checkpoints import checkpoint_damage
from podproof.runtime.errors import DiskFull
from podproof.runtime.events import Event, event_from_dict
from podproof.runtime.spool import spooled_event
from tests.crash.points import Fault
from tests.crash.server import ROOT, Boot, ForkServer, Order
from tests.runtime.faulty_collector import collecting

METHODS = ("sft", "dpo", "orpo")
MOST_BOOTS = 5
SAVE_STEPS = 2
RUN_ID = "run-a"

# A few kilobytes of weights, eight steps of four sequences in two micro-batches, an evaluation and
# a save every two steps, of which two are kept. The learning rate rises until it is far too high:
# the best checkpoint is in the middle, so that rotation and delivery have something to get wrong.
# With dropout the weights also show whether a restart goes on with the same random numbers.
TINY = (
    "model.config.hidden_size=32",
    "model.config.intermediate_size=64",
    "model.config.num_hidden_layers=2",
    "model.config.num_attention_heads=2",
    "model.config.num_key_value_heads=1",
    "model.tokenizer_vocab_size=300",
    "+model.config.attention_dropout=0.1",
    "data.max_rows=24",
    "data.eval.fraction=0.2",
    "trainer.max_steps=8",
    "trainer.per_device_train_batch_size=2",
    "trainer.gradient_accumulation_steps=2",
    "trainer.per_device_eval_batch_size=4",
    "trainer.logging_steps=1",
    f"trainer.eval_steps={SAVE_STEPS}",
    "trainer.save_total_limit=2",
    "trainer.lr_scheduler_type=constant_with_warmup",
    "trainer.warmup_steps=8",
    "trainer.learning_rate=0.2",
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: its files, and the sha256 of each that a resumed run depends on.

    Seals are left out, since they may come a little later. `damage` is what the
    runtime holds against resuming from it.
    """

    name: str
    files: frozenset[str]
    sha256: tuple[tuple[str, str], ...]
    damage: str | None


@dataclass(frozen=True)
class Story:
    """What happened, boot by boot, and what there is at the end.

    `written` are the lines of events.jsonl, `heard` what the collector took, `delivered` the sha256
    of each file of the delivery, `names` what lies in the run's output.
    """

    faults: tuple[Fault, ...]
    boots: tuple[Boot, ...]
    written: tuple[bytes, ...]
    heard: tuple[Event, ...]
    delivered: dict[str, str]
    checkpoints: tuple[Checkpoint, ...]
    names: frozenset[str]

    @property
    def events(self) -> tuple[Event, ...]:
        """Return the events that the file or the collector has, each once, in their order."""
        lines = map(spooled_event, self.written)
        known = {event.event_id: event for event in self.heard}
        known |= {event.event_id: event for event in lines if event is not None}
        return tuple(sorted(known.values(), key=lambda event: (event.boot, event.seq)))

    def events_of(self, boot: int) -> tuple[Event, ...]:
        """Return the events of one boot, counted from 1."""
        return tuple(event for event in self.events if event.boot == boot)

    def trained(self, boot: int) -> tuple[int, ...]:
        """Return the steps that a boot trained to their end."""
        return tuple(self.told(boot, "trained"))

    def told(self, boot: int, key: str) -> Iterator[Any]:
        """Yield what the watch of a boot told under a key."""
        return (line[key] for line in self.boots[boot - 1].trace if key in line)


def write_scripts(folder: Path) -> dict[str, Path]:
    """Compile the tiny run of each method, as `podproof compile` would; return the scripts."""
    scripts = {}
    for method in METHODS:
        run = lower(read(Request((f"experiment=tiny_{method}", *TINY))))
        scripts[method] = folder / f"{method}.py"
        scripts[method].write_text(compile_run(run).text, encoding="utf-8")
    return scripts


@dataclass(frozen=True)
class Teller:
    """Lives stories: a fork server, the scripts, and a folder for the runs."""

    server: ForkServer
    scripts: dict[str, Path]
    folder: Path

    def live(
        self, method: str, faults: Sequence[Fault] = (), *, is_recording: bool = False
    ) -> Story:
        """Start the script as often as the boot program would; one fault for each boot.

        The folder of the run is gone afterwards.
        """
        name = hashlib.sha256(repr((method, faults, is_recording)).encode()).hexdigest()[:16]
        with _empty(self.folder / name) as folder, collecting() as collector:
            output = folder / "output"
            boots: list[Boot] = []
            while len(boots) < MOST_BOOTS and not _is_over(boots):
                number = len(boots) + 1
                environ = {
                    "PODPROOF_RUN_ID": RUN_ID,
                    "PODPROOF_BOOT": str(number),
                    "PODPROOF_OUTPUT": str(output),
                    "PODPROOF_DATA": str(ROOT),
                    "PODPROOF_REPORT_URL": collector.url,
                    "PODPROOF_REPORT_TOKEN": "a-token",
                }
                fault = faults[number - 1] if number <= len(faults) else None
                order = Order(self.scripts[method], folder, environ, fault, is_recording)
                boots.append(self.server.boot(order))
            heard = tuple(map(event_from_dict, collector.events.values()))
            return _told(output, tuple(faults), tuple(boots), heard)


def _is_over(boots: Sequence[Boot]) -> bool:
    # After a full disk the pod is ended too, but somebody makes room and launches again.
    return bool(boots) and boots[-1].code in CODES_WITHOUT_RESTART - {DiskFull.exit_code}


@contextmanager
def _empty(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _told(
    output: Path, faults: tuple[Fault, ...], boots: tuple[Boot, ...], heard: tuple[Event, ...]
) -> Story:
    events = output / "events.jsonl"
    return Story(
        faults=faults,
        boots=boots,
        written=tuple(events.read_bytes().splitlines()) if events.is_file() else (),
        heard=heard,
        delivered=_sha256s(output / "delivered", "*"),
        checkpoints=tuple(map(_checkpoint, sorted(output.glob("checkpoint-*")))),
        names=frozenset(path.name for path in output.iterdir()) if output.is_dir() else frozenset(),
    )


def _checkpoint(path: Path) -> Checkpoint:
    # What is left out holds times, which differ from run to run.
    found = {**_sha256s(path, "*.safetensors"), **_sha256s(path, "*.pt"), **_sha256s(path, "*.pth")}
    files = frozenset(each.name for each in path.iterdir() if not each.name.startswith("podproof."))
    return Checkpoint(path.name, files, tuple(sorted(found.items())), checkpoint_damage(path))


def _sha256s(folder: Path, pattern: str) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob(pattern))
    }
