"""Real, tiny runs in processes of their own, with faults that strike at a chosen forward pass.

Each run is forked from one process that has imported the training libraries, so that it starts in
a moment and may be killed.
"""

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from podproof.compiler.parts import parts_of
from podproof.runtime.events import Event, EventKind, event_from_line
from podproof.runtime.plan import (
    AdapterKind,
    AdapterPlan,
    DataPlan,
    EvalPlan,
    MethodName,
    ModelInit,
    ModelPlan,
    Plan,
    PredictionsPlan,
    PublishPlan,
    RecoveryPlan,
    ReportPlan,
    ScorerPlan,
    Sink,
    plan_from_json,
    plan_to_json,
)

TINY_LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
}
# 24 rows, 4 a step: two epochs of six steps. Losses are logged off the grid of the evaluations.
ARGUMENTS = {
    "max_length": 64,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "learning_rate": 0.01,
    "logging_steps": 3,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "save_strategy": "steps",
    "save_steps": 4,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_checkpoint_score",
    "greater_is_better": True,
    "report_to": "none",
    "seed": 5,
}
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.runtime.pod_preload"])


@dataclass(frozen=True)
class Fault:
    """What happens at forward passes of one kind (train or eval), from the `at`-th on, from 1.

    A signal is sent to the process itself; memory runs out at batches of more than `rows_that_fit`;
    a poisoned pass has NaN in its activations, and so in its loss.
    """

    at: int = 1
    passes: int = 1
    is_training: bool = True
    sends: signal.Signals | None = None
    rows_that_fit: int | None = None
    error: str | None = None
    is_poisoned: bool = False

    def strikes(self, passed: int, *, is_training: bool) -> bool:
        """Tell whether it happens at this pass."""
        is_time = self.at <= passed < self.at + self.passes
        return is_time and is_training == self.is_training


def plan_for(method: MethodName = MethodName.SFT, **changes: Any) -> Plan:
    """Return the plan of a run of 12 steps; keyword arguments are its trainer arguments."""
    return Plan(
        name="tiny",
        seed=5,
        method=method,
        model=ModelPlan(
            init=ModelInit.RANDOM, config=TINY_LLAMA, tokenizer_vocab_size=300, dtype="float32"
        ),
        data=DataPlan(path="rows.jsonl", eval=EvalPlan(path="eval.jsonl")),
        adapter=AdapterPlan(kind=AdapterKind.NONE),
        arguments={**ARGUMENTS, **changes},
        scorer=ScorerPlan(),
        recovery=RecoveryPlan(),
        predictions=PredictionsPlan(),
        report=ReportPlan(sink=Sink.NONE),
        publish=PublishPlan(),
        gpu_count=1,
        node_count=1,
        config_sha256="c" * 64,
    )


def row_for(method: MethodName, number: int) -> dict[str, Any]:
    """Return a row; all rows have the same number of tokens, so that batches weigh the same."""
    letter = "abcdefghijklmnopqrstuvwxyz012345"[number]
    question = {"role": "user", "content": f"What is #{letter}?"}
    answer = {"role": "assistant", "content": f"It is #{letter}."}
    if method is MethodName.SFT:
        return {"messages": [question, answer]}
    wrong = {"role": "assistant", "content": f"Not #{letter}!"}
    return {"prompt": [question], "chosen": [answer], "rejected": [wrong]}


class PodFolder:
    """The folder of one run, and what the run left there."""

    def __init__(self, path: Path, plan: Plan | None = None) -> None:
        """Write the rows of the plan's method there; a folder that exists keeps what it has."""
        self.plan = plan or plan_for()
        self.path = path
        path.mkdir(exist_ok=True)
        for name, numbers in (("rows", range(24)), ("eval", range(24, 32))):
            rows = [json.dumps(row_for(self.plan.method, number)) for number in numbers]
            (path / f"{name}.jsonl").write_text("\n".join(rows))

    @property
    def output(self) -> Path:
        """Return where the run writes."""
        return self.path / "podproof-output"

    def start(self, *faults: Fault, before: Callable[[], None] | None = None) -> BaseProcess:
        """Start the run, or start it again."""
        arguments = (plan_to_json(self.plan), str(self.path), faults, before)
        process = FORKS.Process(target=_run_pod, args=arguments)
        process.start()
        return process

    def run(self, *faults: Fault, before: Callable[[], None] | None = None) -> int | None:
        """Run to the end of the process; return its exit code, negative for a signal."""
        process = self.start(*faults, before=before)
        process.join(300)
        process.kill()
        process.join()
        code = process.exitcode
        process.close()
        return code

    @property
    def log(self) -> str:
        """Return all that was printed."""
        return (self.path / "log.txt").read_text()

    def events(self, *kinds: EventKind) -> list[Event]:
        """Return the events of these kinds, in order."""
        lines = (self.output / "events.jsonl").read_text().splitlines()
        return [event for event in map(event_from_line, lines) if event.kind in kinds]

    def notices(self) -> list[str]:
        """Return what the run noticed, but for the advice that tiny runs always get."""
        told = [event.body["what"] for event in self.events(EventKind.NOTICE)]
        return [what for what in told if "few to choose" not in what]

    def losses(self) -> dict[int | None, float]:
        """Return the train loss logged at each step, to 4 decimals."""
        logs = self.events(EventKind.TRAIN_LOG)
        return {event.step: round(float(event.body["loss"]), 4) for event in logs}

    def checkpoints(self) -> list[str]:
        """Return the names of the checkpoints that lie there."""
        return sorted(path.name for path in self.output.glob("checkpoint-*"))

    def scores(self) -> list[tuple[int, float]]:
        """Return step and score, to 4 decimals, of each evaluation in the newest history."""
        newest = max(self.output.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
        history = json.loads((newest / "trainer_state.json").read_text())["log_history"]
        return [
            (entry["step"], round(entry["eval_checkpoint_score"], 4))
            for entry in history
            if "eval_loss" in entry
        ]

    def ending(self) -> dict[str, Any]:
        """Return the last event's kind and what it says of step and choice."""
        lines = (self.output / "events.jsonl").read_text().splitlines()
        event = event_from_line(lines[-1])
        chosen = {key: event.body.get(key) for key in ("best_step", "final_step")}
        return {"kind": event.kind.value, **chosen}

    def result(self) -> dict[str, Any]:
        """Return all that must be the same with and without a disturbance."""
        return {
            "ending": self.ending(),
            "losses": self.losses(),
            "scores": self.scores(),
            "delivered": (self.output / "delivered" / "model.safetensors").read_bytes(),
        }


def _run_pod(
    plan_json: str, folder: str, faults: tuple[Fault, ...], before: Callable[[], None] | None
) -> None:
    from podproof.runtime.entry import PARTS
    from podproof.runtime.main import main

    os.chdir(folder)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name in [name for name in os.environ if name.startswith("PODPROOF_")]:
        del os.environ[name]
    if before is not None:
        before()
    _install(faults)
    parts = {name: PARTS[name] for name in parts_of(plan_from_json(plan_json))}
    sys.exit(main(plan_json, parts, []))


def _install(faults: tuple[Fault, ...]) -> None:
    """Let faults strike where a model looks up the embeddings of its batch."""
    import torch

    passes = {True: 0, False: 0}

    def strike(module: Any, inputs: Any, embedded: Any) -> Any:
        # The reference model of DPO stays in training mode, and never has gradients.
        is_training = torch.is_grad_enabled()
        if not isinstance(module, torch.nn.Embedding) or is_training != module.training:
            return embedded
        passes[is_training] += 1
        for fault in faults:
            if fault.strikes(passes[is_training], is_training=is_training):
                _strike(fault, len(inputs[0]))
                embedded = embedded * (float("nan") if fault.is_poisoned else 1.0)
        return embedded

    torch.nn.modules.module.register_module_forward_hook(strike)


def _strike(fault: Fault, rows: int) -> None:
    import torch

    if fault.rows_that_fit is not None and rows > fault.rows_that_fit:
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {rows} rows.")
    if fault.sends is not None:
        os.kill(os.getpid(), fault.sends)
    if fault.error is not None:
        raise RuntimeError(fault.error)
