"""Checkpoints as a trainer leaves them, and the ways in which they break."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from podproof.runtime.checkpoints import CHECKPOINT_RECORD, write_manifest

TRAINING_STATE = {
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "training_args.bin",
}
USER_FILES = {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"}

CONFIG = "c" * 64

Damage = Callable[[Path], object]


def safetensors(values: bytes = b"\x01\x02\x03\x04" * 8) -> bytes:
    """Return a file with one tensor of these bytes."""
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "w": {"dtype": "F32", "shape": [8], "data_offsets": [0, len(values)]},
        }
    ).encode()
    return len(header).to_bytes(8, "little") + header + values


def with_header(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def saved_by_torch(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"state " * 50)


def checkpoint(output: Path, step: int) -> Path:
    """Write a sound checkpoint with the files a trainer leaves there."""
    path = output / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(safetensors(bytes([step]) * 32))
    for name in ("config.json", "tokenizer.json"):
        (path / name).write_text('{"a": "\\u00e9"}\n')
    (path / "chat_template.jinja").write_text("{{ messages }}\r\n")
    record = {CHECKPOINT_RECORD: {"config_sha256": CONFIG}}
    state = {"global_step": step, "stateful_callbacks": record}
    (path / "trainer_state.json").write_text(json.dumps(state))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        saved_by_torch(path / name)
    return path


def sealed(output: Path, step: int) -> Path:
    """Write a sound checkpoint with its manifest."""
    path = checkpoint(output, step)
    write_manifest(path)
    return path


def cut(name: str, keep: int) -> Damage:
    """Return the damage of a file of which only the first bytes were written."""
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:keep])


def gone(name: str) -> Damage:
    return lambda path: (path / name).unlink()


def holds(name: str, content: bytes) -> Damage:
    return lambda path: (path / name).write_bytes(content)


INDEX = "model.safetensors.index.json"
DAMAGES: dict[str, tuple[Damage, str]] = {
    "optimizer missing": (gone("optimizer.pt"), "optimizer.pt is missing or empty"),
    "optimizer empty": (holds("optimizer.pt", b""), "optimizer.pt is missing or empty"),
    "optimizer cut": (cut("optimizer.pt", 100), "optimizer.pt is cut short"),
    "scheduler missing": (gone("scheduler.pt"), "scheduler.pt is missing or empty"),
    "scheduler cut": (cut("scheduler.pt", 300), "scheduler.pt is cut short"),
    "random state cut": (cut("rng_state.pth", 50), "rng_state.pth is cut short"),
    "state missing": (gone("trainer_state.json"), "trainer_state.json is missing or empty"),
    "state empty": (holds("trainer_state.json", b""), "trainer_state.json is missing or empty"),
    "state cut": (cut("trainer_state.json", 9), "trainer_state.json is broken"),
    "state no object": (holds("trainer_state.json", b"[]"), "trainer_state.json is broken"),
    "state no text": (holds("trainer_state.json", b"\xff{}"), "trainer_state.json is broken"),
    "weights missing": (gone("model.safetensors"), "no weights"),
    "weights empty": (holds("model.safetensors", b""), "model.safetensors is cut short"),
    "weights one byte short": (
        holds("model.safetensors", safetensors()[:-1]),
        "model.safetensors is cut short",
    ),
    "weights one byte long": (
        holds("model.safetensors", safetensors() + b"\0"),
        "model.safetensors is cut short",
    ),
    "weights zeroed": (
        holds("model.safetensors", b"\0" * 200),
        "model.safetensors has a broken header",
    ),
    "header no object": (
        holds("model.safetensors", with_header(b"[1]")),
        "model.safetensors has a broken header",
    ),
    "header without places": (
        holds("model.safetensors", with_header(b'{"w": 3}')),
        "model.safetensors has a broken header",
    ),
    "header with odd places": (
        holds("model.safetensors", with_header(b'{"w": {"data_offsets": ["a", null]}}')),
        "model.safetensors has a broken header",
    ),
    "part missing": (
        holds(INDEX, b'{"weight_map": {"w": "model-00002.safetensors"}}'),
        "model-00002.safetensors is missing",
    ),
    "index broken": (holds(INDEX, b'{"weight_map": '), f"{INDEX} is broken"),
    "index without map": (holds(INDEX, b"{}"), f"{INDEX} is broken"),
}
