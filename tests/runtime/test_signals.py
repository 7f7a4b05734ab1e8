"""Signals and kills: whenever they come, a restart ends as if they had not come."""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.pod_process import Fault, PodFolder, plan_for

from podproof.runtime.events import EventKind
from podproof.runtime.plan import EarlyStopping, MethodName, Plan, ScorerPlan

Undisturbed = Callable[[Plan], dict[str, Any]]
BY_EPOCH: dict[str, Any] = {
    "eval_steps": None,
    "save_steps": None,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "logging_strategy": "epoch",
}


def evaluated_steps(pod: PodFolder) -> list[int | None]:
    return [event.step for event in pod.events(EventKind.EVALUATION)]


def signal_when(audited: str, part: str, number: signal.Signals) -> None:
    """Send a signal to this process the first time an audited event names a path with `part`."""
    armed = [True]

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if event == audited and armed and part in str(arguments[0]):
            armed.clear()
            os.kill(os.getpid(), number)

    sys.addaudithook(listen)


# Step 4 and 8 are evaluated and saved; step 6 ends an epoch; step 12 is the last.
@pytest.mark.parametrize(
    "step",
    [
        pytest.param(1, marks=pytest.mark.slow),
        4,
        7,
        pytest.param(8, marks=pytest.mark.slow),
        pytest.param(11, marks=pytest.mark.slow),
        12,
    ],
)
def test_a_sigterm_in_a_step_saves_that_step_and_nothing_is_lost(
    tmp_path: Path, step: int, undisturbed: Undisturbed
) -> None:
    pod = PodFolder(tmp_path / "run")

    stopped = pod.run(Fault(at=step, sends=signal.SIGTERM))
    at_the_stop = (pod.ending()["kind"], f"checkpoint-{step}" in pod.checkpoints())
    resumed = pod.run()

    assert (stopped, resumed) == (143, 0)
    assert at_the_stop == ("preempted", True)
    assert pod.result() == undisturbed(pod.plan)
    assert evaluated_steps(pod) == [4, 8, 12]


@pytest.mark.parametrize("batch", [1, pytest.param(4, marks=pytest.mark.slow), 6])
def test_a_sigterm_in_an_evaluation_leaves_it_and_a_restart_makes_it(
    tmp_path: Path, batch: int, undisturbed: Undisturbed
) -> None:
    pod = PodFolder(tmp_path / "run")

    stopped = pod.run(Fault(at=batch, is_training=False, sends=signal.SIGTERM))
    resumed = pod.run()

    assert (stopped, resumed) == (143, 0)
    assert pod.result() == undisturbed(pod.plan)
    assert evaluated_steps(pod) == [4, 8, 12]


def test_a_stop_in_the_evaluation_that_a_restart_makes_up_for_is_no_trouble(
    tmp_path: Path, undisturbed: Undisturbed
) -> None:
    pod = PodFolder(tmp_path / "run")
    in_the_first_evaluation = Fault(is_training=False, sends=signal.SIGTERM)

    codes = [pod.run(in_the_first_evaluation), pod.run(in_the_first_evaluation), pod.run()]

    assert codes == [143, 143, 0]
    assert pod.result() == undisturbed(pod.plan)


@pytest.mark.parametrize(
    "step", [pytest.param(3, marks=pytest.mark.slow), 6, pytest.param(12, marks=pytest.mark.slow)]
)
def test_where_epochs_are_evaluated_a_stop_adds_no_evaluation_and_loses_none(
    tmp_path: Path, step: int, undisturbed: Undisturbed
) -> None:
    pod = PodFolder(tmp_path / "run", plan_for(**BY_EPOCH))

    stopped = pod.run(Fault(at=step, sends=signal.SIGTERM))
    resumed = pod.run()

    assert (stopped, resumed) == (143, 0)
    assert pod.result() == undisturbed(pod.plan)
    assert evaluated_steps(pod) == [6, 12]


@pytest.mark.parametrize(
    "method", [MethodName.DPO, pytest.param(MethodName.ORPO, marks=pytest.mark.slow)]
)
def test_a_stop_is_the_same_for_every_method(
    tmp_path: Path, method: MethodName, undisturbed: Undisturbed
) -> None:
    pod = PodFolder(tmp_path / "run", plan_for(method))

    stopped = pod.run(Fault(at=7, sends=signal.SIGTERM))
    resumed = pod.run()

    assert (stopped, resumed) == (143, 0)
    assert pod.result() == undisturbed(pod.plan)


def test_sigint_stops_as_sigterm_does(tmp_path: Path, undisturbed: Undisturbed) -> None:
    pod = PodFolder(tmp_path / "run")

    stopped = pod.run(Fault(at=5, sends=signal.SIGINT))
    resumed = pod.run()

    assert (stopped, resumed) == (143, 0)
    assert pod.events(EventKind.PREEMPTED)[0].body == {"reason": "SIGINT"}
    assert pod.result() == undisturbed(pod.plan)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(("open", "rows.jsonl"), id="reading rows"),
        pytest.param(("shutil.copyfile", "checkpoint-12"), id="delivering"),
    ],
)
def test_where_no_step_would_be_lost_a_signal_ends_the_run_at_once(
    tmp_path: Path, moment: tuple[str, str], undisturbed: Undisturbed
) -> None:
    pod = PodFolder(tmp_path / "run")

    stopped = pod.run(before=partial(signal_when, *moment, signal.SIGTERM))
    kind = pod.ending()["kind"]
    resumed = pod.run()

    assert (stopped, kind, resumed) == (143, "preempted", 0)
    assert pod.result() == undisturbed(pod.plan)


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(Fault(at=2), id="before the first save", marks=pytest.mark.slow),
        pytest.param(Fault(at=5), id="just after a save"),
        pytest.param(Fault(at=8), id="just before a save", marks=pytest.mark.slow),
        pytest.param(Fault(at=4, is_training=False), id="in an evaluation"),
        pytest.param(Fault(at=6, is_training=False), id="in the last one", marks=pytest.mark.slow),
    ],
)
def test_a_kill_loses_one_save_interval_at_most(
    tmp_path: Path, kill: Fault, undisturbed: Undisturbed
) -> None:
    pod = PodFolder(tmp_path / "run")

    killed = pod.run(replace(kill, sends=signal.SIGKILL))
    before = {event.step for event in pod.events(EventKind.EVALUATION)}
    resumed = pod.run()

    assert (killed, resumed) == (-9, 0)
    assert pod.result() == undisturbed(pod.plan)
    assert before <= {4, 8}
    assert evaluated_steps(pod) == [4, 8, 12]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("checkpoint-8/trainer_state.json", "checkpoint-8 set aside: trainer_state.json is"),
        # Opened by Python only when the checkpoint is whole and is being hashed.
        ("checkpoint-8/optimizer.pt", "checkpoint-8 has no manifest"),
    ],
    ids=["saving", "sealing"],
)
def test_a_kill_while_a_checkpoint_is_made_goes_back_to_one_that_is_whole(
    tmp_path: Path, file: str, said: str, undisturbed: Undisturbed
) -> None:
    pod = PodFolder(tmp_path / "run")

    killed = pod.run(before=partial(signal_when, "open", file, signal.SIGKILL))
    resumed = pod.run()

    assert (killed, resumed) == (-9, 0)
    assert pod.result() == undisturbed(pod.plan)
    assert pod.notices()[0].startswith(said)


def test_a_run_that_had_stopped_early_does_not_train_on_after_a_kill(
    tmp_path: Path, undisturbed: Undisturbed
) -> None:
    # Evaluated at every step with a rate that grows nothing better: patience runs out soon.
    plan = impatient_plan()
    pod = PodFolder(tmp_path / "run", plan)

    killed = pod.run(before=partial(signal_when, "shutil.copyfile", "checkpoint", signal.SIGKILL))
    resumed = pod.run()

    assert (killed, resumed) == (-9, 0)
    assert pod.result() == undisturbed(plan)
    assert pod.ending()["kind"] == "stopped_early"
    (ended,) = pod.events(EventKind.STOPPED_EARLY)
    assert ended.body["reason"] == "early_stopping"
    assert pod.ending()["final_step"] < 12


def test_a_stop_keeps_its_checkpoint_where_only_one_may_stay(tmp_path: Path) -> None:
    # With no gain after step 4 that checkpoint is the best, and the only one within the limit.
    worse = Fault(at=3, passes=100, is_training=False, is_poisoned=True)
    pod = PodFolder(tmp_path / "run", plan_for(save_total_limit=1))

    stopped = pod.run(worse, Fault(at=11, sends=signal.SIGTERM))
    kept = pod.checkpoints()
    pod.run(worse)

    (resumed,) = pod.events(EventKind.RESUMED)
    assert (stopped, kept) == (143, ["checkpoint-11", "checkpoint-4"])
    assert Path(resumed.body["path"]).name == "checkpoint-11"


def impatient_plan() -> Plan:
    stopping = EarlyStopping(patience=1, min_delta=1.0)
    plan = plan_for(eval_steps=2, save_steps=2)
    return replace(plan, scorer=ScorerPlan(early_stopping=stopping))


def test_a_bug_ends_a_start_with_its_traceback_and_the_next_start_goes_on(
    tmp_path: Path, undisturbed: Undisturbed
) -> None:
    pod = PodFolder(tmp_path / "run")

    failed = pod.run(Fault(at=6, error="a worker broke"))
    (event,) = pod.events(EventKind.FAILED)
    resumed = pod.run()

    assert (failed, resumed) == (1, 0)
    assert event.body["error"] == "RuntimeError: a worker broke"
    assert event.body["problems"][-1] == "RuntimeError: a worker broke"
    assert pod.result() == undisturbed(pod.plan)
