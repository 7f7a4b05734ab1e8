"""The callback under whatever a trainer may log: NaN in disguise, odd types, and what it costs."""

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from tests.runtime.test_callback import Recorder, callback_with, simulated

from podproof.harness.simulator import TrainerControl, TrainerState
from podproof.runtime.events import EventKind
from podproof.runtime.scorer import SCORE_KEY

NAN = math.nan

# A loss that only looks well.


@pytest.mark.parametrize(
    "sign",
    [
        {"nonfinite_microbatches": 1},
        {"nonfinite_microbatches": 2.0},
        {"grad_norm": NAN},
        {"grad_norm": math.inf},
        {"entropy": NAN},
        {"nll_loss": NAN},
    ],
)
def test_a_loss_that_hides_nan_is_no_improvement_and_is_counted(sign: dict[str, Any]) -> None:
    callback = callback_with()
    state = TrainerState(9, global_step=1)
    for loss in (2.0, 2.0):
        callback.on_log(None, state, TrainerControl(), logs={"loss": loss, "grad_norm": 1.0})
    before = callback.scores

    callback.on_log(None, state, TrainerControl(), logs={"loss": 0.0, **sign})

    assert callback.scores == before
    assert callback.trend.losses == (2.0, 2.0)
    assert callback.trend.nonfinite_count == 1


@pytest.mark.parametrize(
    "sign", [{"nonfinite_microbatches": 0}, {"grad_norm": "n/a"}, {"entropy": None}]
)
def test_a_loss_beside_harmless_values_counts(sign: dict[str, Any]) -> None:
    callback = callback_with()

    callback.on_log(
        None, TrainerState(9, global_step=1), TrainerControl(), logs={"loss": 0.5, **sign}
    )

    assert callback.scores.last_train_loss == 0.5
    assert callback.trend.nonfinite_count == 0


def test_the_count_of_such_logs_is_told_with_every_evaluation() -> None:
    recorder = Recorder()

    simulated(callback_with(recorder), train_losses=(2.0, NAN, NAN, 1.0))

    counts = [body["nonfinite_train_logs"] for body in recorder.bodies(EventKind.EVALUATION)]
    assert counts == [0, 1, 2, 2]


# Anything at all.

KEYS = st.sampled_from(
    [
        "loss",
        "train_loss",
        "eval_loss",
        "eval_runtime",
        "eval_a_loss",
        "eval_a_runtime",
        "eval_",
        "eval__runtime",
        "grad_norm",
        "nonfinite_microbatches",
        "rewards/margins",
        "eval_rewards/margins",
        "eval_rewards/accuracies",
        "step",
        "epoch",
        SCORE_KEY,
    ]
)
VALUES = st.one_of(
    st.floats(),
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.text(max_size=3),
    st.just([1.0]),
    st.just({"a": 1}),
)
LOGS = st.dictionaries(KEYS, VALUES, max_size=6)
STEPS = st.integers(0, 5)


@given(st.lists(st.tuples(LOGS, STEPS), max_size=12))
def test_no_log_fails_a_hook_and_every_evaluation_gets_a_float(
    given_logs: list[tuple[dict[str, Any], int]],
) -> None:
    callback = callback_with()
    state = TrainerState(9)
    callback.on_train_begin(None, state, TrainerControl())
    metrics = [dict(logs) for logs, _ in given_logs]
    for logs, (_, step) in zip(metrics, given_logs, strict=True):
        logs.pop(SCORE_KEY, None)
        state.global_step = step
        state.log_history.append({**logs, "step": step})
        callback.on_log(None, state, TrainerControl(), logs=logs)
        callback.on_evaluate(None, state, TrainerControl(), metrics=logs)

    assert callback.failures == {}
    assert {type(logs[SCORE_KEY]) for logs in metrics} <= {float}


@given(st.lists(st.tuples(LOGS, STEPS), max_size=12))
def test_any_history_can_be_begun_from(history: list[tuple[dict[str, Any], int]]) -> None:
    callback = callback_with()
    entries = [{**logs, "step": step} for logs, step in history]

    callback.on_train_begin(None, TrainerState(9, log_history=entries), TrainerControl())

    assert callback.failures == {}


def test_a_failure_in_a_state_without_a_rank_stays_inside_too() -> None:
    recorder = Recorder()
    callback = callback_with(recorder)

    callback.on_save(SimpleNamespace(), SimpleNamespace(), TrainerControl())

    assert (sum(callback.failures.values()), recorder.told) == (1, [])


# What hooks cost.


def test_every_call_of_a_hook_is_counted_and_timed_and_told_once_at_the_end() -> None:
    recorder = Recorder()

    simulated(callback_with(recorder), max_steps=20)

    (body,) = recorder.bodies(EventKind.HOOK_COST)
    counts = {name: cost["count"] for name, cost in body["hooks"].items()}
    assert counts == {
        "on_train_begin": 1,
        "on_step_end": 20,
        "on_log": 9,
        "on_evaluate": 4,
        "on_save": 4,
    }
    assert all(
        0 < cost["longest_s"] <= cost["total_s"] <= cost["longest_s"] * cost["count"]
        for cost in body["hooks"].values()
    )
    assert body["failures"] == {}


def test_a_call_that_fails_is_timed_and_its_failure_told_at_the_end() -> None:
    recorder = Recorder()
    callback = callback_with(recorder)
    state = TrainerState(9)

    callback.on_save(SimpleNamespace(), state, TrainerControl())
    callback.on_save(SimpleNamespace(), state, TrainerControl())
    callback.on_train_end(None, state, TrainerControl())

    (body,) = recorder.bodies(EventKind.HOOK_COST)
    assert body["hooks"]["on_save"]["count"] == 2
    assert list(body["failures"].values()) == [2]


# No hook does I/O.

WATCHED = """
import sys, threading
from pathlib import Path
from podproof.harness.simulator import Scenario, SimulatedTrainer
from podproof.runtime.callback import PodCallback, StopRequest
from podproof.runtime.plan import MethodName, ScorerPlan
from podproof.runtime.reporter import Reporter, ReportSource

output = Path(sys.argv[1])
reporter = Reporter(output, ReportSource("run", 1))
here, seen = threading.get_ident(), []
IO = ("open", "os.", "socket.", "subprocess.", "shutil.", "tempfile.", "import", "ctypes.", "pty.")

def watch(event, args):
    if watching and threading.get_ident() == here and event.startswith(IO):
        seen.append(event)

watching = False
sys.addaudithook(watch)
callback = PodCallback(ScorerPlan(), reporter.report, StopRequest())
trainer = SimulatedTrainer(Scenario("watched", MethodName.DPO, eval_sets=("a", "b")), callback)
watching = True
if sys.argv[2] == "careless":
    callback.report = lambda *_, **__: open(sys.argv[0] or sys.executable, "rb").close()
trainer.train()
watching = False
reporter.close(10)
events = output / "events.jsonl"
lines = events.read_text().count("\\n") if events.exists() else 0
print(sorted(set(seen)), lines, callback.costs["on_step_end"].count)
"""


@pytest.mark.parametrize(
    ("reporting", "seen"), [("as it is", "[] 16 20"), ("careless", "['open']")]
)
def test_no_hook_opens_a_file_or_a_socket_with_the_real_reporter_beneath(
    reporting: str, seen: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", WATCHED, str(tmp_path), reporting]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout.startswith(seen), done.stdout
