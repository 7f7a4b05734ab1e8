"""What report_to integrations see of the score, in real trainings, wherever they stand in the list.

TensorBoard is the real package, and what it wrote is read back. W&B, trackio and MLflow are the
real integrations of transformers over small stand-ins for the packages, which keep what they get.
"""

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tests.runtime.test_callback import Recorder, callback_with
from tests.runtime.test_trainers import built_with, plan_for
from transformers import EarlyStoppingCallback, TrainerCallback
from trl.trainer import base_trainer

from podproof.runtime.events import EventKind
from podproof.runtime.plan import MethodName

# What one integration was given: (step, name, value).
Logged = list[tuple[int, str, Any]]


def trained_with(folder: Path, *names: str, **arguments: Any) -> Recorder:
    """Train with the pod's own callback and these integrations; return what was reported."""
    recorder = Recorder()
    plan = plan_for(MethodName.SFT, report_to=list(names), **arguments)
    built_with(plan, folder, callback_with(recorder)).trainer.train()
    return recorder


def reported(recorder: Recorder) -> list[tuple[int | None, float]]:
    bodies = recorder.bodies(EventKind.EVALUATION)
    steps = recorder.steps(EventKind.EVALUATION)
    return [(step, body["checkpoint_score"]) for step, body in zip(steps, bodies, strict=True)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_the_score_of_every_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))

    recorder = trained_with(tmp_path / "run", "tensorboard")

    written = EventAccumulator(str(tmp_path / "board"))
    written.Reload()
    scores = [(point.step, point.value) for point in written.Scalars("eval/checkpoint_score")]
    assert scores == [(step, pytest.approx(score)) for step, score in reported(recorder)]
    assert len(scores) == 2


def stand_in(name: str, monkeypatch: pytest.MonkeyPatch, **there: Any) -> ModuleType:
    """Put a module where an import of the package finds it, until the test is over."""
    module = ModuleType(name)
    module.__dict__.update({"__spec__": ModuleSpec(name, None), "__version__": "99.0", **there})
    monkeypatch.setitem(sys.modules, name, module)
    return module


class Settings(dict[str, Any]):
    """The config of a run, as these packages have it."""

    def update(self, values: Any = (), *, allow_val_change: bool = True) -> None:  # type: ignore[override]
        assert allow_val_change
        super().update(values)


def stand_in_for_wandb(monkeypatch: pytest.MonkeyPatch) -> Logged:
    logged: Logged = []

    def log(values: dict[str, Any]) -> None:
        step = values["train/global_step"]
        logged.extend((step, name, value) for name, value in values.items())

    run = SimpleNamespace(_label=lambda **_: None, summary={}, id="1", name="run", url=None)
    stand_in("wandb", monkeypatch, run=run, log=log, config=Settings())
    stand_in("wandb.sdk.lib.config_util", monkeypatch, ConfigError=ValueError)
    # TRL looks for the package once, when it is itself imported.
    monkeypatch.setattr(base_trainer, "wandb", sys.modules["wandb"], raising=False)
    return logged


def stand_in_for_trackio(monkeypatch: pytest.MonkeyPatch) -> Logged:
    logged: Logged = []

    def log(values: dict[str, Any]) -> None:
        step = values["train/global_step"]
        logged.extend((step, name, value) for name, value in values.items())

    nowhere = SimpleNamespace(get=lambda: None)
    stand_in(
        "trackio",
        monkeypatch,
        init=lambda **_: None,
        finish=lambda: None,
        log=log,
        config=Settings(),
        context_vars=SimpleNamespace(
            current_space_id=nowhere, current_project=nowhere, current_run=nowhere
        ),
    )
    return logged


def stand_in_for_mlflow(monkeypatch: pytest.MonkeyPatch) -> Logged:
    logged: Logged = []

    def log_metrics(*, metrics: dict[str, float], step: int, synchronous: bool) -> None:
        assert not synchronous
        logged.extend((step, name, value) for name, value in metrics.items())

    limits = SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
    stand_in(
        "mlflow",
        monkeypatch,
        utils=SimpleNamespace(validation=limits),
        is_tracking_uri_set=lambda: True,
        get_tracking_uri=lambda: "file:///nowhere",
        active_run=lambda: SimpleNamespace(info=SimpleNamespace(run_id="1", experiment_id="1")),
        start_run=lambda **_: None,
        log_params=lambda *_, **__: None,
        log_metrics=log_metrics,
        end_run=lambda: None,
    )
    return logged


@pytest.mark.parametrize(
    ("name", "place", "metric"),
    [
        ("wandb", stand_in_for_wandb, "eval/checkpoint_score"),
        ("trackio", stand_in_for_trackio, "eval/checkpoint_score"),
        ("mlflow", stand_in_for_mlflow, "eval_checkpoint_score"),
    ],
)
def test_the_other_integrations_are_given_the_score_of_every_evaluation(
    name: str,
    place: Callable[[pytest.MonkeyPatch], Logged],
    metric: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logged = place(monkeypatch)

    recorder = trained_with(tmp_path, name)

    scores = [(step, value) for step, key, value in logged if key == metric]
    assert scores == reported(recorder)
    assert len(scores) == 2


# Callbacks of others, in whatever order.


class Watching(TrainerCallback):  # type: ignore[misc]  # transformers is not typed here
    """A user's callback: it looks for the score in what it is given."""

    def __init__(self) -> None:
        self.seen_in_log: list[bool] = []
        self.seen_in_metrics: list[bool] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "eval_loss" in logs:
            self.seen_in_log.append("eval_checkpoint_score" in logs)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        self.seen_in_metrics.append("eval_checkpoint_score" in metrics)


class Meddling(TrainerCallback):  # type: ignore[misc]  # transformers is not typed here
    """A user's callback that takes keys away from what comes after it."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        logs.pop("eval_loss", None)
        logs.pop("eval_checkpoint_score", None)


def test_a_callback_of_the_user_sees_the_score_wherever_it_stands(tmp_path: Path) -> None:
    before, after = Watching(), Watching()
    built = built_with(plan_for(MethodName.SFT), tmp_path, callback_with())
    trainer = built.trainer
    trainer.callback_handler.callbacks.insert(0, before)
    trainer.add_callback(after)

    trainer.train()

    assert after.seen_in_log == [True, True]
    assert before.seen_in_metrics[1:] == after.seen_in_metrics[1:]
    assert before.seen_in_metrics == [True, True]
    assert trainer.state.best_global_step in {2, 3}


def test_a_callback_that_takes_the_score_away_does_not_end_training(tmp_path: Path) -> None:
    callback = callback_with()
    trainer = built_with(plan_for(MethodName.SFT), tmp_path, callback).trainer
    trainer.add_callback(Meddling())

    trainer.train()

    assert trainer.state.global_step == 3
    assert trainer.state.best_global_step == callback.scores.best_step
    assert callback.failures == {}


class Stopping(EarlyStoppingCallback):  # type: ignore[misc]  # transformers is not typed here
    """Early stopping of transformers, which looks at a metric only where it finds it."""

    def __init__(self) -> None:
        super().__init__(early_stopping_patience=9)
        self.looked_at: list[float] = []

    def check_metric_value(self, args: Any, state: Any, control: Any, metric_value: float) -> None:
        self.looked_at.append(metric_value)


@pytest.mark.parametrize("place", [0, 99])
def test_early_stopping_of_transformers_finds_the_score_wherever_it_stands(
    place: int, tmp_path: Path
) -> None:
    stopping, recorder = Stopping(), Recorder()
    built = built_with(plan_for(MethodName.SFT), tmp_path, callback_with(recorder))
    built.trainer.callback_handler.callbacks.insert(place, stopping)

    built.trainer.train()

    assert stopping.looked_at == [score for _, score in reported(recorder)]
    assert len(stopping.looked_at) == 2
