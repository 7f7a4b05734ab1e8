"""Pod scripts for two processes, on the CPU: compiled, started, and made to fail where asked.

A fault strikes inside the unmodified script: `driver.py` loads it, and only puts a step of its own
in front of one of transformers' training steps, on one rank, once.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run
from podproof.runtime.events import Event, EventKind, event_from_line

ROOT = Path(__file__).parents[2]

# 40 training rows, 20 batches of 2: ten steps of two processes, or of one that accumulates twice.
TINY = (
    "report=none",
    "recovery.max_restarts=0",
    "model.config.hidden_size=32",
    "model.config.intermediate_size=64",
    "model.config.num_hidden_layers=2",
    "model.tokenizer_vocab_size=320",
    "method.max_length=128",
    "data.max_rows=50",
    "data.eval.fraction=0.2",
    "trainer.num_train_epochs=1",
    "trainer.per_device_train_batch_size=2",
    "trainer.gradient_accumulation_steps=1",
    "trainer.per_device_eval_batch_size=2",
    "trainer.logging_steps=1",
    "trainer.eval_steps=2",
    "trainer.save_total_limit=null",
)

DRIVER = """
import importlib.util, os, pathlib, signal, sys, time
here = pathlib.Path(__file__).parent
spec = importlib.util.spec_from_file_location("pod_script", here / "pod_script.py")
script = importlib.util.module_from_spec(spec)
sys.modules["pod_script"] = script
spec.loader.exec_module(script)
FAULTS = {
    "raise": lambda: (_ for _ in ()).throw(RuntimeError("a fault on one rank")),
    "oom": lambda: (_ for _ in ()).throw(RuntimeError("CUDA error: out of memory")),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "stop starter": lambda: os.kill(os.getppid(), signal.SIGTERM),
    "kill starter": lambda: (os.kill(os.getppid(), signal.SIGKILL), time.sleep(60)),
}
marker = here / "struck"
if os.environ.get("LOCAL_RANK") == os.environ.get("FAULT_RANK") and not marker.exists():
    script.prepare_training_libraries()
    import transformers
    usual = transformers.Trainer.training_step
    def training_step(self, *args, **kwargs):
        if self.state.global_step == int(os.environ["FAULT_STEP"]) and not marker.exists():
            marker.write_text(str(os.getpid()))
            FAULTS[os.environ["FAULT"]]()
        return usual(self, *args, **kwargs)
    transformers.Trainer.training_step = training_step
if os.environ.get("SHARD_ON_CPU") and "LOCAL_RANK" in os.environ:
    script.prepare_training_libraries()
    from accelerate.state import AcceleratorState, DistributedType
    stock = AcceleratorState.__init__
    def init(self, *args, fsdp_plugin=None, **kwargs):
        stock(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
        if self.__dict__.get("fsdp_plugin") is not None:
            self.distributed_type = DistributedType.FSDP
    AcceleratorState.__init__ = init
raise SystemExit(script.main(script.PLAN_JSON, script.PARTS))
"""


@dataclass(frozen=True)
class Ended:
    """How a script ended: its exit code, all it printed, and the events of all its starts."""

    code: int
    said: str
    events: list[Event]

    def bodies(self, kind: EventKind) -> list[Mapping[str, object]]:
        """Return the bodies of the events of one kind, in order."""
        return [event.body for event in self.events if event.kind is kind]

    def losses(self) -> dict[int, float]:
        """Return the eval loss by step; a step that was evaluated twice stands once."""
        evaluations = [event for event in self.events if event.kind is EventKind.EVALUATION]
        return {event.step or 0: float(event.body["eval_loss"]) for event in evaluations}


def write_script(folder: Path, *overrides: str) -> None:
    """Compile an experiment, made tiny, into a folder that has its data too."""
    script = compile_run(lower(read(Request((overrides[0], *TINY, *overrides[1:])))))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pod_script.py").write_text(script.text, encoding="utf-8")
    (folder / "driver.py").write_text(DRIVER, encoding="utf-8")


def environment(folder: Path, **changes: str) -> dict[str, str]:
    """Return the environment of a machine without GPUs, with nothing of ours in it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PODPROOF_")}
    return {
        **kept,
        "PODPROOF_DATA": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "TMPDIR": str(folder),
        **changes,
    }


def start(folder: Path, program: str = "pod_script.py", **changes: str) -> subprocess.Popen[str]:
    """Start a script; its output goes to `said.txt`, appended."""
    with (folder / "said.txt").open("a") as said:
        return subprocess.Popen(
            [sys.executable, program],
            cwd=folder,
            env=environment(folder, **changes),
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        )


def ended(folder: Path, process: subprocess.Popen[str], timeout_s: float = 240) -> Ended:
    """Wait for a script, and gather what it left."""
    try:
        code = process.wait(timeout_s)
    finally:
        process.kill()
    path = folder / "podproof-output" / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    said = (folder / "said.txt").read_text()
    return Ended(code, said, [event_from_line(line) for line in lines])


def run(folder: Path, program: str = "pod_script.py", **changes: str) -> Ended:
    """Run a script to its end."""
    return ended(folder, start(folder, program, **changes))


def run_with_fault(folder: Path, fault: str, *, rank: int, step: int) -> Ended:
    """Run a script whose `rank` meets a fault in the step after `step`."""
    faults = {"FAULT": fault, "FAULT_RANK": str(rank), "FAULT_STEP": str(step)}
    return run(folder, "driver.py", **faults)


def state_of(folder: Path, step: int) -> dict[str, object]:
    """Return the trainer's state in a checkpoint."""
    path = folder / "podproof-output" / f"checkpoint-{step}" / "trainer_state.json"
    state: dict[str, object] = json.loads(path.read_text())
    return state


def processes_left(folder: Path) -> list[int]:
    """Return the ids of this folder's ranks; one that is just dying has a moment to be gone."""
    for _ in range(50):
        if not _ranks_of(folder):
            return []
        time.sleep(0.1)
    return _ranks_of(folder)


def _ranks_of(folder: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = str(folder).encode() in (process / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
        found += [int(process.name)] if is_ours else []
    return found


def free_port() -> int:
    """Return a port that nobody listens at just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
