"""The warm process: what one job does to itself, no other job and nobody else has to suffer."""

import json
import pickle
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from podproof.compiler.ir import PodScript
from podproof.harness.shrink import plan_to_train
from podproof.harness.small_job import small_job
from podproof.harness.smoke import smoke_answer
from podproof.harness.trainer import trainer_answer
from podproof.harness.verdict import Surroundings
from podproof.harness.warm import Job, NotWarm, Order, WarmTrainer
from tests.harness.conftest import AT_HAND, Tamper, script_of

BEGINNING = "    rows = read_data(plan.data, plan.method, run.surroundings.data_roots)\n    _report"


def is_running(pid: int) -> bool:
    """Tell whether a process is there and not merely waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(is_so: object) -> None:
    end_s = time.monotonic() + 30
    while not is_so():  # type: ignore[operator]  # a function without arguments
        assert time.monotonic() < end_s, "it did not come to that"
        time.sleep(0.05)


def beginning_with(tamper: Tamper, statement: str) -> PodScript:
    return tamper(BEGINNING, f"    {statement}\n{BEGINNING}")


def test_a_script_that_dies_is_refused_with_the_signal(
    tamper: Tamper, warm_at_hand: Surroundings
) -> None:
    _, problems = smoke_answer(beginning_with(tamper, "os.kill(os.getpid(), 9)"), warm_at_hand)

    assert "was killed by signal 9" in problems[0].what


@pytest.mark.slow
def test_a_script_that_exits_without_a_word_is_refused(
    tamper: Tamper, warm_at_hand: Surroundings
) -> None:
    _, problems = smoke_answer(beginning_with(tamper, "os._exit(0)"), warm_at_hand)

    assert problems != ()


def test_a_script_that_hangs_is_ended_in_time_and_the_place_is_told(
    tamper: Tamper, warm: WarmTrainer
) -> None:
    hurried = pickle.loads(pickle.dumps(warm))  # noqa: S301 - made on this line
    hurried.limit_s = 1.5
    script = beginning_with(tamper, "signal.pause()")

    _, problems = smoke_answer(script, Surroundings(AT_HAND.data_roots, warm=hurried))

    assert "did not end in time" in problems[0].what
    assert "in _train_and_deliver" in problems[0].what


def test_a_script_that_takes_more_memory_than_a_job_may_fails_alone(
    tamper: Tamper, warm_at_hand: Surroundings
) -> None:
    _, (problem,) = smoke_answer(beginning_with(tamper, "bytearray(9 << 30)"), warm_at_hand)

    assert problem.what.startswith("MemoryError")


def test_a_process_that_is_left_running_is_told_and_ended(
    tamper: Tamper, warm_at_hand: Surroundings, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    start = f'os.fork() or (open("{note}", "w").write(str(os.getpid())), signal.pause())'

    _, problems = smoke_answer(beginning_with(tamper, start), warm_at_hand)

    assert "left processes running" in problems[0].what
    until(lambda: not is_running(int(note.read_text())))


def test_a_job_ends_when_nobody_waits_for_it_any_more(
    tamper: Tamper, warm: WarmTrainer, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    start = f'(open("{note}", "w").write(str(os.getpid())), signal.pause())'
    script = beginning_with(tamper, start)

    with small_job(script, AT_HAND, plan_to_train) as job:
        warm.start()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(warm.address)
            order = {"job": Job.TRAIN, "folder": str(job.folder), "limit_s": 60}
            connection.sendall(json.dumps(order).encode() + b"\n")
            until(lambda: note.exists() and note.read_text())
            assert is_running(int(note.read_text()))
        until(lambda: not is_running(int(note.read_text())))


@pytest.mark.slow
def test_what_one_job_does_to_its_memory_the_next_one_does_not_see(
    tamper: Tamper, sound: PodScript, warm_at_hand: Surroundings
) -> None:
    spoiling = beginning_with(tamper, 'setattr(__import__("torch"), "tensor", None)')
    assert smoke_answer(spoiling, warm_at_hand)[1] != ()

    assert trainer_answer(sound, warm_at_hand)[1] == ()


@pytest.mark.slow
def test_several_scripts_are_proven_side_by_side(warm_at_hand: Surroundings) -> None:
    scripts = [script_of(f"experiment=tiny_{method}") for method in ("sft", "dpo", "orpo")]

    with ThreadPoolExecutor(len(scripts)) as threads:
        answers = list(threads.map(lambda script: smoke_answer(script, warm_at_hand), scripts))

    assert [problems for _, problems in answers] == [(), (), ()]


def test_a_copy_speaks_to_the_same_process_and_leaves_it_running(warm: WarmTrainer) -> None:
    warm.start()
    with pickle.loads(pickle.dumps(warm)) as copy:  # noqa: S301 - made on this line
        assert copy.address == warm.address

    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(warm.address)


def test_loading_the_libraries_leaves_no_thread_that_a_fork_would_lose(warm: WarmTrainer) -> None:
    warm.start()

    assert len(list(Path(f"/proc/{warm.pid}/task").iterdir())) == 1


def test_without_the_training_libraries_the_gates_say_what_to_install(
    sound: PodScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As import sees it, a module that is None is not there.
    monkeypatch.setitem(sys.modules, "torch", None)

    summary, (problem,) = trainer_answer(sound, AT_HAND)

    assert summary == "no trainer was built"
    assert "torch cannot be imported" in problem.what
    assert "pip install 'podproof[pod]'" in problem.way_out
    assert smoke_answer(sound, AT_HAND)[1] == (problem,)


def test_a_warm_process_that_is_gone_is_told(tmp_path: Path) -> None:
    with WarmTrainer() as trainer:
        trainer.address = str(tmp_path / "nobody")

        with pytest.raises(NotWarm, match="ended by itself"):
            trainer.ask(Order(Job.BUILD, tmp_path))
