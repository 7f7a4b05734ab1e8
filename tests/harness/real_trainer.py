"""A run in a real TRL trainer and the same run in the simulator, seen by the same recorder.

The simulator is given the arguments, the number of rows, the callbacks, and the numbers the real
model brought about: the loss of each micro-batch, and the metrics of each evaluation by their step
and eval set. When what happens, it must find by itself.
"""

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from podproof.harness.loss_window import LossWindow
from podproof.harness.schedule import schedule_of
from podproof.harness.stream_events import StreamEvent, checkpoint_step
from podproof.harness.trainer_loop import EVENTS, TrainerLoop
from podproof.harness.trainer_state import CheckpointFolder, TrainerState
from podproof.runtime.libraries import prepare_training_libraries
from podproof.runtime.plan import AdapterKind, MethodName, ModelInit, ModelPlan
from tests.harness.drawn_runs import Interferer, Recorder

TINY = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
COMMON = {
    "use_cpu": True,
    "bf16": False,
    "activation_checkpointing": False,
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "max_length": 32,
    "learning_rate": 0.01,
}
# A key only TRL adds, by which its metrics are known in a log.
TRL_KEYS = {
    MethodName.SFT: "mean_token_accuracy",
    MethodName.DPO: "rewards/margins",
    MethodName.ORPO: "rewards/margins",
}


class Crash(Exception):
    """What a training is made to die of."""


@dataclass(frozen=True)
class Run:
    """A training to be done twice.

    `interference` are hook, count, flag and value of callbacks, which come before the recorder or
    after it. `patience` adds transformers' own early stopping. `crash_at` is the step whose
    on_step_end raises; then the run is resumed from the last checkpoint, if there is one.
    `goes_on` resumes it also when it came to its end. `afterwards` has the trainer evaluate and
    predict once more when it is through. `nan_batches` are micro-batches, counted from 0, whose
    loss reads NaN.
    """

    method: MethodName
    arguments: Mapping[str, Any]
    rows: int = 8
    eval_rows: Mapping[str, int] | int | None = None
    interference: tuple[tuple[str, int, str, bool], ...] = ()
    is_recorder_last: bool = True
    patience: int | None = None
    crash_at: int | None = None
    goes_on: bool = False
    afterwards: bool = False
    nan_batches: frozenset[int] = frozenset()


@dataclass
class Measured:
    """What one training showed: its events, and the numbers the model brought about."""

    events: list[StreamEvent] = field(default_factory=list)
    micro_losses: list[float] = field(default_factory=list)
    error: str | None = None


class Crasher:
    """A callback that raises at the end of one step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, _: object, state: Any, *__: object, **___: object) -> None:
        if state.global_step == self.step:
            raise Crash


def callbacks_of(run: Run, recorder: Recorder, *, crashes: bool) -> list[object]:
    """Return the callbacks of a training, made anew, in their order."""
    others: list[object] = [Interferer(*told) for told in run.interference]
    if run.patience is not None:
        from transformers import EarlyStoppingCallback

        others.append(EarlyStoppingCallback(run.patience))
    ordered = [*others, recorder] if run.is_recorder_last else [recorder, *others]
    if crashes and run.crash_at is not None:
        ordered.append(Crasher(run.crash_at))
    return ordered


# The real one.


def real_streams(run: Run, folder: Path) -> list[Measured]:
    """Train for real; return each training: the run, and its resumption after a crash."""
    first = _train(run, folder, resume=None, crashes=True)
    last = max(_checkpoints(folder), default=None)
    is_over = first.error != "Crash" and (first.error or not run.goes_on or last is None)
    if is_over:
        return [first]
    path = None if last is None else str(folder / f"checkpoint-{last}")
    return [first, _train(run, folder, resume=path, crashes=False)]


def _train(run: Run, folder: Path, *, resume: str | None, crashes: bool) -> Measured:
    measured = Measured()
    recorder = Recorder(lambda: _checkpoints(folder))
    measured.events = recorder.events
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        callbacks = callbacks_of(run, recorder, crashes=crashes)
        trainer = _trainer(run, folder, callbacks, measured)
        try:
            trainer.train(resume_from_checkpoint=resume)
            if run.afterwards:
                trainer.evaluate()
                trainer.predict(trainer.eval_dataset)
        except (Crash, KeyError) as error:
            measured.error = type(error).__name__
    return measured


def _trainer(run: Run, folder: Path, callbacks: Sequence[object], measured: Measured) -> Any:
    stock, config = _classes(run.method)
    model, tokenizer = _model()
    trainer_class = type(
        stock.__name__, (stock,), {"training_step": _measuring(stock, run, measured)}
    )
    named = run.eval_rows
    return trainer_class(
        model=model,
        args=config(output_dir=str(folder), **COMMON, **_extra(run.method), **run.arguments),
        processing_class=tokenizer,
        train_dataset=_rows(run.method, run.rows),
        eval_dataset=(
            {name: _rows(run.method, count) for name, count in named.items()}
            if isinstance(named, Mapping)
            else _rows(run.method, named or 0)
            if named
            else None
        ),
        callbacks=[_as_callback(each) for each in callbacks],
        **_reference(run.method),
    )


def _measuring(stock: Any, run: Run, measured: Measured) -> Callable[..., Any]:
    def training_step(self: Any, *given: Any, **more: Any) -> Any:
        loss = stock.training_step(self, *given, **more)
        if len(measured.micro_losses) in run.nan_batches:
            loss = loss * math.nan
        measured.micro_losses.append(loss.item())
        return loss

    return training_step


def _classes(method: MethodName) -> tuple[Any, Any]:
    prepare_training_libraries()
    if method is MethodName.SFT:
        from trl import SFTConfig, SFTTrainer

        return SFTTrainer, SFTConfig
    if method is MethodName.DPO:
        from trl import DPOConfig, DPOTrainer

        return DPOTrainer, DPOConfig
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    return ORPOTrainer, ORPOConfig


def _extra(method: MethodName) -> dict[str, Any]:
    # ORPO's collator reads columns that its model does not.
    return {"remove_unused_columns": False} if method is MethodName.ORPO else {}


def _reference(method: MethodName) -> dict[str, Any]:
    return {"ref_model": _model()[0]} if method is MethodName.DPO else {}


def _model() -> tuple[Any, Any]:
    from podproof.runtime.models import load_model

    plan = ModelPlan(init=ModelInit.RANDOM, config=TINY, tokenizer_vocab_size=300, dtype="float32")
    loaded = load_model(plan, AdapterKind.NONE, seed=5, texts=["What is 1?"], extra={})
    return loaded.model, loaded.tokenizer


@functools.cache
def _rows(method: MethodName, count: int) -> Any:
    from datasets import Dataset

    if method is MethodName.SFT:
        return Dataset.from_list([{"text": f"One and {number}"} for number in range(count)])
    return Dataset.from_list(
        [
            {"prompt": f"{number}?", "chosen": f" {number + 1}", "rejected": " no"}
            for number in range(count)
        ]
    )


def _as_callback(hooks: object) -> Any:
    from transformers import TrainerCallback

    if isinstance(hooks, TrainerCallback):
        return hooks
    found = {event: getattr(hooks, event, None) for event in EVENTS}
    callback = type(type(hooks).__name__, (TrainerCallback,), {})()
    for event, hook in found.items():
        if hook is not None:
            setattr(callback, event, hook)
    return callback


def _checkpoints(folder: Path) -> list[int]:
    steps = (checkpoint_step(path.name) for path in folder.glob("checkpoint-*"))
    return [step for step in steps if step is not None]


# The simulated one.


def simulated_streams(run: Run, real: Sequence[Measured]) -> Iterator[Measured]:
    """Yield each training as the simulator has it, from the numbers of the real ones."""
    folder = CheckpointFolder("/simulated")
    resume = None
    for number, measured in enumerate(real):
        saver = _Saver()
        simulated = Measured()
        recorder = Recorder(lambda: folder.steps)
        simulated.events = recorder.events
        try:
            loop = TrainerLoop(
                schedule_of(run.arguments, rows=run.rows, eval_rows=run.eval_rows),
                MeasuredLosses(run.method, measured),
                [*callbacks_of(run, recorder, crashes=number == 0), saver],
                folder,
            )
            loop.train(resume)
            if run.afterwards:
                loop.evaluate()
                loop.predict(loop.schedule.eval_sets[0][1], {})
        except (Crash, KeyError) as error:
            simulated.error = type(error).__name__
        resume = saver.last
        yield simulated


class _Saver:
    """A callback that keeps the state as the last checkpoint holds it."""

    last: TrainerState | None = None

    def on_save(self, _: object, state: TrainerState, *__: object, **___: object) -> None:
        self.last = state.read_back()


class MeasuredLosses:
    """The numbers of a real training, for the simulated one to log."""

    def __init__(self, method: MethodName, measured: Measured) -> None:
        self._key = TRL_KEYS[method]
        self._is_orpo = method is MethodName.ORPO
        self._micro_losses = iter(measured.micro_losses)
        self._evaluations: dict[tuple[int, str], list[dict[str, Any]]] = {}
        for event in measured.events:
            if event.name == "on_log eval":
                place = (event.step, event.eval_set or "")
                self._evaluations.setdefault(place, []).append(dict(event.numbers or {}))

    def micro_loss(self, state: TrainerState) -> float | None:
        return next(self._micro_losses, math.nan)

    def train_logs(self, state: TrainerState, window: LossWindow) -> dict[str, Any]:
        has_metrics = window.has_train_metrics or self._is_orpo
        return {"loss": window.logged_loss, **({self._key: 0.5} if has_metrics else {})}

    def eval_logs(self, eval_set: str, state: TrainerState) -> dict[str, Any]:
        there = self._evaluations.get((state.global_step, eval_set))
        if there:
            return there.pop(0)
        return {f"eval_{eval_set}_runtime" if eval_set else "eval_runtime": math.nan}

    def final_logs(self, state: TrainerState, window: LossWindow) -> dict[str, Any]:
        has_metrics = window.has_train_metrics and not self._is_orpo
        train_loss = window.train_loss(state.global_step) or 0.0
        return {"train_loss": train_loss, **({self._key: 0.5} if has_metrics else {})}
