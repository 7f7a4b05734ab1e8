"""What the callback costs: in a real trainer, hook by hook, and in simulated runs.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/callback.py

The real part trains the tiny model of the tests with TRL, in this process, once with the pod's
callback and its real reporter and once without, in turns; what counts is the ratio of the medians.
Budgets: 20 microseconds a hook, 100 an evaluation
(its on_log and on_evaluate), 2 % of a training, 200,000 simulated events a second.
"""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podproof.harness.simulator import Scenario, SimulatedTrainer
from podproof.runtime.callback import PodCallback, StopRequest
from podproof.runtime.deadline import DeadlineWatch
from podproof.runtime.events import EventKind
from podproof.runtime.plan import (
    AdapterKind,
    AdapterPlan,
    DataPlan,
    MethodName,
    ModelInit,
    ModelPlan,
    NonfinitePlan,
    Plan,
    PredictionsPlan,
    PublishPlan,
    RecoveryPlan,
    ReportPlan,
    RowFormat,
    ScorerPlan,
)
from podproof.runtime.reporter import Reporter, ReportSource
from podproof.runtime.rows import Row, Rows
from podproof.runtime.safeguard import Safeguard
from podproof.runtime.sealing import CheckpointSealer

ROUNDS = 15
STEPS = 40
EVERY = 4
SIMULATED_STEPS = 3000

TINY = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
ARGUMENTS = {
    "max_length": 64,
    "max_steps": STEPS,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": EVERY,
    "save_strategy": "no",
    "report_to": "none",
}
PLAN = Plan(
    name="tiny",
    seed=5,
    method=MethodName.SFT,
    model=ModelPlan(init=ModelInit.RANDOM, config=TINY, tokenizer_vocab_size=300, dtype="float32"),
    data=DataPlan(),
    adapter=AdapterPlan(kind=AdapterKind.NONE),
    arguments=ARGUMENTS,
    scorer=ScorerPlan(),
    recovery=RecoveryPlan(),
    predictions=PredictionsPlan(),
    report=ReportPlan(),
    publish=PublishPlan(),
    gpu_count=1,
    node_count=1,
    config_sha256="0",
)


class NoHooks:
    """In the callback's place: nothing is called."""


def keep(kind: EventKind, **rest: Any) -> None:
    """Take an event and do nothing."""


def rows() -> Rows:
    """Return questions and answers enough for one pass."""
    there = [
        Row(
            f"rows:{number}",
            {
                "messages": [
                    {"role": "user", "content": f"What is {number} and what comes after it?"},
                    {"role": "assistant", "content": f"It is {number}; {number + 1} comes after."},
                ]
            },
        )
        for number in range(120)
    ]
    return Rows(tuple(there[:100]), tuple(there[100:]), RowFormat.MESSAGES)


def train(hooks: object, folder: str) -> float:
    """Train once with these hooks; return the seconds it took."""
    from podproof.runtime.trainers import build_trainer

    safeguard = Safeguard(
        StopRequest(),
        NonfinitePlan(),
        CheckpointSealer(keep),
        keep,
        "0",
        DeadlineWatch({}, PLAN.publish.to),
        lambda: None,
    )
    trainer = build_trainer(PLAN, rows(), Path(folder), hooks, safeguard).trainer
    started_s = time.perf_counter()
    trainer.train()
    return time.perf_counter() - started_s


class Stopwatch:
    """The hooks of a callback, each call timed; an evaluation's log is told from a train log."""

    def __init__(self, callback: PodCallback) -> None:
        """Take the place of the callback."""
        self.seconds: dict[str, list[float]] = {}
        for name in dir(callback):
            if name.startswith("on_"):
                setattr(self, name, self._timed(name, getattr(callback, name)))

    def _timed(self, name: str, hook: Callable[..., None]) -> Callable[..., None]:
        def timed(*given: Any, **more: Any) -> None:
            started_s = time.perf_counter()
            hook(*given, **more)
            seconds = time.perf_counter() - started_s
            is_evaluation = "eval_loss" in (more.get("logs") or {})
            label = f"{name}, evaluation" if is_evaluation else name
            self.seconds.setdefault(label, []).append(seconds)

        return timed


@dataclass(frozen=True)
class Pair:
    """Seconds of a training without and with the callback, and of every call of its hooks."""

    without_s: float
    with_s: float
    hooks: dict[str, list[float]]


def measured(folder: str, boot: int) -> Pair:
    """Train without and with the callback; who goes first changes, so that neither gains by it."""
    reporter = Reporter(Path(folder) / f"{boot}", ReportSource("bench", boot))
    watched = Stopwatch(PodCallback(PLAN.scorer, reporter.report, StopRequest()))
    times: dict[bool, float] = {}
    for is_with in (True, False) if boot % 2 else (False, True):
        times[is_with] = train(watched if is_with else NoHooks(), folder)
    reporter.close(10)
    return Pair(times[False], times[True], watched.seconds)


def report_seconds(folder: str) -> float:
    """Return what one report of a train log takes whoever reports."""
    reporter = Reporter(Path(folder) / "alone", ReportSource("bench", 1))
    body = {"loss": 1.0, "grad_norm": 1.0, "learning_rate": 1e-4, "epoch": 0.5}
    started_s = time.perf_counter()
    for step in range(2000):
        reporter.report(EventKind.TRAIN_LOG, step=step, epoch=0.5, body=body)
    seconds = (time.perf_counter() - started_s) / 2000
    reporter.close(10)
    return seconds


def events_per_second() -> float:
    """Return the rate at which simulated events reach the real callback."""
    scenario = Scenario("fast", MethodName.DPO, max_steps=SIMULATED_STEPS, eval_steps=50)
    rates = []
    for _ in range(9):
        trainer = SimulatedTrainer(scenario, PodCallback(ScorerPlan(), keep, StopRequest()))
        started_s = time.perf_counter()
        ended = trainer.train()
        rates.append(ended.events / (time.perf_counter() - started_s))
    return statistics.median(rates)


def tenth_and_median_us(pairs: list[Pair], name: str) -> tuple[float, float]:
    """Return the time below which a tenth of the calls stayed, and the median.

    On a machine that does other things too the first is the better guess of what a call costs.
    """
    seconds = [each for pair in pairs for each in pair.hooks[name]]
    return statistics.quantiles(seconds, n=10)[0] * 1e6, statistics.median(seconds) * 1e6


def main() -> None:
    """Print each figure beside its budget."""
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:  # noqa: PTH123 - no path
        with contextlib.redirect_stdout(nowhere):  # trainers print
            measured(folder, 0)  # warms up imports, allocators and threads
            pairs = [measured(folder, boot) for boot in range(1, ROUNDS + 1)]
        alone_s = report_seconds(folder)
    ratio = statistics.median(pair.with_s / pair.without_s for pair in pairs)
    share = statistics.median(sum(map(sum, pair.hooks.values())) / pair.without_s for pair in pairs)
    print(f"a training of {STEPS} steps  {statistics.median(p.without_s for p in pairs):.3f} s")
    print(f"with the callback       {ratio:.3f} times that (budget 1.02)")
    print(f"inside its hooks        {share:.2%} of that")
    tenths = {name: tenth_and_median_us(pairs, name) for name in sorted(pairs[0].hooks)}
    for name, (tenth, typical) in tenths.items():
        budget = 100 if "evaluation" in name else 20
        print(f"{name:<24}{typical:.1f} us, a tenth below {tenth:.1f} (budget {budget})")
    tenth, typical = map(sum, zip(tenths["on_log, evaluation"], tenths["on_evaluate"], strict=True))
    print(f"an evaluation           {typical:.1f} us, a tenth below {tenth:.1f} (budget 100)")
    print(f"a report by itself      {alone_s * 1e6:.1f} us")
    print(f"simulated events        {events_per_second():,.0f} a second (budget 200,000)")


if __name__ == "__main__":
    main()
