"""A run stops while there is time to score, save, deliver and say so, and not much earlier."""

import functools
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from tests.runtime.pod_process import Fault, PodFolder, plan_for

from podproof.runtime.deadline import Deadline, DeadlineCosts, DeadlineWatch
from podproof.runtime.errors import BadPlan
from podproof.runtime.events import EventKind
from podproof.runtime.plan import PublishTo

START_UNIX_S = 1_000_000.0


@dataclass
class Simulation:
    """A trainer whose steps, evaluations and saves take as long as they are told.

    Its clocks stand still but for that. `happened` lists what it did after the watch stopped it.
    """

    total_s: float
    step_s: float = 1.0
    evaluation_s: float = 1.0
    save_s: float = 1.0
    eval_every: int = 10
    eval_strategy: str = "steps"
    limit: str = "time"
    publish_to: PublishTo = PublishTo.DIR
    is_first_rank: bool = True
    now_s: float = 0.0
    steps: int = 0
    happened: list[str] = field(default_factory=list)

    def watch(self) -> DeadlineWatch:
        environ = {
            "PODPROOF_DEADLINE_UNIX_S": str(START_UNIX_S + self.total_s),
            "PODPROOF_LIMIT": self.limit,
        }
        return DeadlineWatch(
            environ,
            self.publish_to,
            wall_s=lambda: START_UNIX_S + self.now_s,
            monotonic_s=lambda: self.now_s,
        )

    def train(self, watch: DeadlineWatch, most_steps: int = 100_000) -> None:
        """Train until the watch stops it, or for so many steps."""
        args = SimpleNamespace(eval_strategy=self.eval_strategy)
        state = SimpleNamespace(is_world_process_zero=self.is_first_rank)
        flags = {"should_evaluate": False, "should_save": False, "should_training_stop": False}
        control = SimpleNamespace(**flags)
        watch.on_train_begin(args, state, control)
        while not control.should_training_stop and self.steps < most_steps:
            self.steps += 1
            self.now_s += self.step_s
            is_due = self.steps % self.eval_every == 0
            vars(control).update(flags, should_evaluate=is_due, should_save=is_due)
            watch.on_step_end(args, state, control)
            self.happened.clear()
            self._evaluate_and_save(watch, (args, state, control))

    def _evaluate_and_save(self, watch: DeadlineWatch, given: tuple[Any, Any, Any]) -> None:
        if given[2].should_evaluate:
            self.now_s += self.evaluation_s
            self.happened.append("evaluation")
            watch.on_evaluate(*given)
        if given[2].should_save:
            self.now_s += self.save_s
            self.happened.append("save")
            watch.on_save(*given)


seconds = st.floats(0.01, 60.0)


@given(
    step_s=st.floats(2.0, 40.0),
    evaluation_s=seconds,
    save_s=seconds,
    eval_every=st.integers(1, 40),
    total_s=st.floats(3_000.0, 12_000.0),
)
def test_whatever_things_take_a_run_is_delivered_in_time_and_uses_most_of_it(
    step_s: float, evaluation_s: float, save_s: float, eval_every: int, total_s: float
) -> None:
    run = Simulation(total_s, step_s, evaluation_s, save_s, eval_every)
    watch = run.watch()

    run.train(watch)
    left_s = total_s - run.now_s

    # A delivery is about a save, and telling the collector takes up to 30 s.
    assert left_s >= save_s + 30.0
    unused_s = 45.0 + 2 * 1.5 * (evaluation_s + save_s) + 1.5 * save_s + 4 * step_s
    assert left_s <= max(unused_s, 645.0 + 4 * step_s)
    assert watch.ending is EventKind.OUT_OF_TIME


def test_the_last_step_is_evaluated_and_saved_when_there_is_room(tmp_path: Path) -> None:
    run = Simulation(total_s=3600.0, evaluation_s=60.0, save_s=10.0, eval_every=1000)

    run.train(run.watch())

    assert run.happened == ["evaluation", "save"]
    # 1.5 steps, 1.5 evaluations with their saves, 45 s, and 1.5 saves for the delivery.
    assert run.steps == 3600 - 70 * (run.steps // 1000) - int(1.5 + 1.5 * 70 + 45 + 1.5 * 10)


def test_an_evaluation_that_took_the_room_of_the_last_one_is_not_repeated() -> None:
    run = Simulation(total_s=3600.0, evaluation_s=300.0, save_s=10.0, eval_every=100)

    run.train(run.watch())

    assert run.happened in ([], ["evaluation", "save"])
    assert run.total_s - run.now_s >= 45.0 + 10.0


def test_a_run_without_evaluations_saves_its_last_step() -> None:
    run = Simulation(total_s=3600.0, eval_strategy="no", eval_every=10**9)

    run.train(run.watch())

    assert run.happened == ["save"]


def test_before_any_evaluation_was_seen_ten_minutes_are_kept_for_one() -> None:
    run = Simulation(total_s=36_000.0, eval_every=10**9)

    run.train(run.watch())

    assert run.happened == ["evaluation", "save"]
    assert run.steps == 36_000 - 646


def test_in_a_short_run_a_tenth_of_the_time_is_kept() -> None:
    run = Simulation(total_s=60.0, step_s=0.1, evaluation_s=0.1, save_s=0.1)

    run.train(run.watch())

    assert 6.0 <= run.total_s - run.now_s <= 8.0


def test_an_upload_is_given_more_time_than_a_copy() -> None:
    costs = DeadlineCosts(step_s=1.0, evaluation_s=10.0, save_s=20.0)

    reserves = [Deadline(36_000.0, to).deliver_s(costs) for to in PublishTo]

    assert dict(zip(PublishTo, reserves, strict=True)) == {
        PublishTo.DIR: 75.0,
        PublishTo.HUB: 390.0,
        PublishTo.NONE: 40.0,
    }


def test_money_is_told_from_time() -> None:
    run = Simulation(total_s=600.0, limit="money")
    watch = run.watch()

    run.train(watch)

    assert watch.ending is EventKind.OUT_OF_MONEY
    assert watch.reason == f"{600 - run.steps - 2 * (run.steps // 10):.0f} s before the deadline"


def test_a_run_that_ends_before_is_none_of_its_business() -> None:
    run = Simulation(total_s=3600.0)
    watch = run.watch()

    run.train(watch, most_steps=100)

    assert (watch.ending, watch.reason, run.steps) == (None, None, 100)


def test_only_the_first_rank_decides() -> None:
    run = Simulation(total_s=100.0, is_first_rank=False)

    run.train(run.watch(), most_steps=1000)

    assert run.steps == 1000


def test_a_slow_first_step_does_not_end_a_run_early() -> None:
    slow = DeadlineCosts().with_step(300.0)

    later = functools.reduce(lambda costs, _: costs.with_step(1.0), range(60), slow)

    assert later.step_s == 1.0


def test_a_wall_clock_that_is_set_while_the_run_goes_on_changes_nothing() -> None:
    wall_s = iter([START_UNIX_S, START_UNIX_S - 9_000, START_UNIX_S + 9_000])
    environ = {"PODPROOF_DEADLINE_UNIX_S": str(START_UNIX_S + 600)}
    watch = DeadlineWatch(
        environ, PublishTo.DIR, wall_s=lambda: next(wall_s), monotonic_s=lambda: 5.0
    )

    assert [watch.left_s, watch.left_s] == [600.0, 600.0]


def test_without_a_deadline_a_run_goes_on() -> None:
    watch = DeadlineWatch({}, PublishTo.DIR)

    assert (watch.ending, watch.left_s) == (None, float("inf"))


@pytest.mark.parametrize(
    "environ", [{"PODPROOF_DEADLINE_UNIX_S": "soon"}, {"PODPROOF_LIMIT": "patience"}]
)
def test_a_deadline_that_is_none_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(BadPlan, match="PODPROOF_DEADLINE_UNIX_S"):
        DeadlineWatch(environ, PublishTo.DIR)


def in_twenty_seconds() -> None:
    os.environ["PODPROOF_DEADLINE_UNIX_S"] = str(time.time() + 20)


def long_ago() -> None:
    os.environ["PODPROOF_DEADLINE_UNIX_S"] = str(time.time() - 5)
    os.environ["PODPROOF_LIMIT"] = "money"


@pytest.mark.slow
def test_a_real_training_out_of_time_scores_delivers_and_says_so(tmp_path: Path) -> None:
    pod = PodFolder(tmp_path / "run", plan_for(num_train_epochs=100_000))

    code = pod.run(before=in_twenty_seconds)

    kinds = [event.kind for event in pod.events(*EventKind)]
    ending = pod.events(EventKind.OUT_OF_TIME)[0]
    assert code == 6
    assert kinds[-2:] == [EventKind.DELIVERED, EventKind.OUT_OF_TIME]
    last_scored = pod.events(EventKind.EVALUATION)[-1].step or 0
    assert 0 <= ending.body["final_step"] - last_scored < 4
    assert ending.body["final_step"] < 600_000
    assert (pod.output / "delivered" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_real_training_past_its_deadline_delivers_what_there_is_also_when_it_is_told_to_stop(
    tmp_path: Path,
) -> None:
    pod = PodFolder(tmp_path / "run", plan_for(num_train_epochs=100_000))
    pod.run(before=in_twenty_seconds)
    weights = pod.output / "delivered" / "model.safetensors"
    delivered = weights.read_bytes()
    weights.unlink()

    code = pod.run(Fault(sends=signal.SIGTERM), before=long_ago)

    first, second = pod.events(EventKind.OUT_OF_TIME, EventKind.OUT_OF_MONEY)
    assert (code, second.kind) == (6, EventKind.OUT_OF_MONEY)
    assert second.body["best_step"] == first.body["best_step"]
    assert weights.read_bytes() == delivered
