"""A batch in worker processes: all are judged, in order, also when a worker dies."""

import subprocess
import sys
from pathlib import Path

from podproof.harness.batch import cores, judge_all
from podproof.harness.experiments import Experiment, Order
from podproof.harness.judgement import Judgement
from podproof.harness.verdict import Surroundings

# In a process of its own: forking beside the threads of a test runner is not what users do.
PROGRAM = Path(__file__).with_name("deadly_batch.py")


class Plain(Order):
    """An order that clears everything at once."""

    def judge(self, experiment: Experiment) -> Judgement:
        return Judgement(experiment.name, "", None, None, is_cleared=True, verdicts=())


def test_one_job_asks_in_this_process_and_tells_each() -> None:
    experiments = [Experiment(name, Path(name), Path()) for name in "abc"]
    told: list[str] = []

    judged = judge_all(
        experiments, Plain(Surroundings()), jobs=1, on_done=lambda item: told.append(item.subject)
    )

    assert told == [item.subject for item in judged] == ["a", "b", "c"]


class Leaving(Plain):
    """An order in which one experiment tries to end podproof, as with success."""

    def judge(self, experiment: Experiment) -> Judgement:
        if experiment.name == "b":
            raise SystemExit(0)
        return super().judge(experiment)


def test_an_experiment_that_would_end_podproof_is_refused_and_no_other() -> None:
    experiments = [Experiment(name, Path(name), Path()) for name in "abc"]

    judged = judge_all(experiments, Leaving(Surroundings()), jobs=1)

    assert [item.is_cleared for item in judged] == [True, False, True]
    assert "SystemExit" in judged[1].verdicts[0].problems[0].what


def test_there_is_at_least_one_core() -> None:
    assert cores() >= 1


def test_an_experiment_that_kills_its_process_is_refused_and_no_other() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], capture_output=True, text=True, check=False, timeout=120
    )

    assert done.stdout.splitlines() == [
        "a cleared",
        "deadly refused: the process that asked the gates died before it could answer",
        "b cleared",
        "c cleared",
    ], done.stderr
