"""Out of memory: recognised, answered with smaller batches, and the run comes to the same."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from tests.runtime.pod_process import Fault, PodFolder, plan_for

from podproof.runtime.errors import OutOfMemory
from podproof.runtime.events import EventKind
from podproof.runtime.failures import error_chain, is_disk_full, is_out_of_memory
from podproof.runtime.plan import MethodName, OomPlan, Plan, RecoveryPlan
from podproof.runtime.recovery import (
    BATCH_SIZES_FILE,
    BatchSizes,
    planned_sizes,
    remember_sizes,
    remembered_sizes,
    smaller_sizes,
    train_in_memory,
    with_sizes,
)

FOR_EVER = 10_000
PLAN = plan_for()


class OutOfMemoryError(RuntimeError):
    """By the name of torch's own."""


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


# What an exception says.


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("any words"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("HIP out of memory."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
        raised_from(ValueError("the step failed"), RuntimeError("CUDA error: out of memory")),
    ],
    ids=lambda error: str(error)[:30],
)
def test_out_of_memory_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        ValueError("the row reads: out of memory"),
        KeyError("eval_loss"),
        OSError(28, "No space left on device"),
    ],
    ids=str,
)
def test_other_failures_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_a_failure_while_handling_it_is_still_that() -> None:
    with pytest.raises(ValueError, match="no number") as failure:
        fail_while_handling(RuntimeError("CUDA out of memory."))

    assert is_out_of_memory(failure.value)


def fail_while_handling(error: Exception) -> None:
    try:
        raise error
    except RuntimeError:
        int("no number")


def test_a_chain_that_leads_back_to_itself_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first

    assert list(error_chain(first)) == [first, second]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        OSError(27, "File too large"),
        RuntimeError("[enforce fail at x.cc] . PytorchStreamWriter failed writing file data/0"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=str,
)
def test_a_full_disk_is_recognised(error: Exception) -> None:
    assert is_disk_full(error)


# Sizes.


SIZES = st.builds(BatchSizes, st.integers(1, 4096), st.integers(1, 512), st.integers(1, 4096))


@given(SIZES)
def test_smaller_sizes_keep_the_rows_of_a_step(sizes: BatchSizes) -> None:
    smaller = smaller_sizes(sizes, in_evaluation=False) or sizes

    assert smaller.train * smaller.accumulation == sizes.train * sizes.accumulation
    assert smaller.train < sizes.train or smaller is sizes
    assert (smaller is sizes) == (sizes.train == 1)


@given(SIZES)
def test_a_smaller_evaluation_leaves_training_as_it_is(sizes: BatchSizes) -> None:
    smaller = smaller_sizes(sizes, in_evaluation=True) or sizes

    assert (smaller.train, smaller.accumulation) == (sizes.train, sizes.accumulation)
    assert sizes.evaluation % smaller.evaluation == 0
    assert (smaller is sizes) == (sizes.evaluation == 1)


@pytest.mark.parametrize(("batch", "halved"), [(8, 4), (6, 3), (2, 1), (3, 1), (15, 5), (7, 1)])
def test_an_even_batch_is_halved_and_an_odd_one_divided_by_what_divides_it(
    batch: int, halved: int
) -> None:
    smaller = smaller_sizes(BatchSizes(batch, 1, 1), in_evaluation=False)

    assert smaller is not None
    assert (smaller.train, smaller.accumulation) == (halved, batch // halved)


def test_sizes_are_remembered_for_the_same_config_only(tmp_path: Path) -> None:
    sizes = BatchSizes(2, 8, 4, 2)
    remember_sizes(PLAN, tmp_path, sizes)

    assert remembered_sizes(PLAN, tmp_path) == sizes
    assert remembered_sizes(replace(PLAN, config_sha256="d" * 64), tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == [BATCH_SIZES_FILE]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"{}", b"\xff", b'{"config_sha256": "c", "train": 1}']
)
def test_sizes_that_cannot_be_read_are_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / BATCH_SIZES_FILE).write_bytes(content)

    assert remembered_sizes(PLAN, tmp_path) is None


def test_sizes_enter_the_trainer_by_its_own_names() -> None:
    plan = with_sizes(PLAN, BatchSizes(1, 16, 2))

    assert planned_sizes(plan) == BatchSizes(1, 16, 2)
    assert with_sizes(PLAN, planned_sizes(PLAN)) is PLAN


# Trying again.


class Trainings:
    """A training that runs out of memory at batches larger than fit."""

    def __init__(self, fits: int) -> None:
        self.fits = fits
        self.tried: list[tuple[int, int]] = []

    def __call__(self, plan: Plan) -> str:
        sizes = planned_sizes(plan)
        self.tried.append((sizes.train, sizes.accumulation))
        if sizes.train > self.fits:
            raise OutOfMemoryError("CUDA out of memory.")
        return "trained"


def with_halvings(limit: int, **arguments: Any) -> Plan:
    recovery = RecoveryPlan(oom=OomPlan(max_halvings=limit))
    return replace(plan_for(**arguments), recovery=recovery)


def test_training_is_tried_with_smaller_batches_until_one_fits(tmp_path: Path) -> None:
    trainings, notices = Trainings(fits=1), list[str]()

    ending = train_in_memory(with_halvings(3), tmp_path, notices.append, trainings)

    assert ending == "trained"
    assert trainings.tried == [(4, 1), (2, 2), (1, 4)]
    assert len(notices) == 2


def test_the_next_start_begins_with_the_sizes_that_fitted(tmp_path: Path) -> None:
    train_in_memory(PLAN, tmp_path, print, Trainings(fits=2))
    again = Trainings(fits=2)

    train_in_memory(PLAN, tmp_path, print, again)

    assert again.tried == [(2, 2)]


@pytest.mark.parametrize(
    ("limit", "what"),
    [(9, "a batch of one row does not fit"), (1, "does not fit into memory after 1 halvings")],
)
def test_memory_that_cannot_be_found_ends_the_run_with_the_reason(
    tmp_path: Path, limit: int, what: str
) -> None:
    with pytest.raises(OutOfMemory, match=what) as failure:
        train_in_memory(with_halvings(limit), tmp_path, print, Trainings(fits=0))

    assert failure.value.problems[0].way_out


def test_no_halving_is_made_where_none_is_allowed(tmp_path: Path) -> None:
    trainings = Trainings(fits=2)

    with pytest.raises(OutOfMemory):
        train_in_memory(with_halvings(0), tmp_path, print, trainings)

    assert trainings.tried == [(4, 1)]


def test_another_failure_goes_on_as_it_is(tmp_path: Path) -> None:
    def train(_plan: Plan) -> None:
        raise KeyError("eval_loss")

    with pytest.raises(KeyError, match="eval_loss"):
        train_in_memory(PLAN, tmp_path, print, train)


def test_one_of_several_processes_leaves_the_sizes_to_the_next_start(
    tmp_path: Path,
) -> None:
    plan = replace(PLAN, gpu_count=2)
    trainings = Trainings(fits=2)

    with pytest.raises(OutOfMemoryError):
        train_in_memory(plan, tmp_path, print, trainings)

    assert trainings.tried == [(4, 1)]
    assert remembered_sizes(plan, tmp_path) == BatchSizes(2, 2, 4, 1)


# Real trainings.


@pytest.mark.parametrize("method", list(MethodName))
def test_out_of_memory_in_a_step_changes_no_logged_loss_and_no_evaluation(
    tmp_path: Path, method: MethodName, undisturbed: Callable[[Plan], dict[str, Any]]
) -> None:
    plan = plan_for(method)
    # DPO and ORPO put both answers of a pair into one pass.
    fits = 2 if method is MethodName.SFT else 4
    pod = PodFolder(tmp_path / "run", plan)

    code = pod.run(Fault(at=10, passes=FOR_EVER, rows_that_fit=fits))

    wanted = undisturbed(plan)
    assert code == 0
    assert pod.losses() == wanted["losses"]
    assert pod.ending() == wanted["ending"]
    assert pod.scores() == wanted["scores"]
    assert "out of memory in a training step: batch 4 x accumulation 1" in pod.notices()[0]


def test_before_the_first_checkpoint_it_starts_again_from_the_same_weights(
    tmp_path: Path, undisturbed: Callable[[Plan], dict[str, Any]]
) -> None:
    pod = PodFolder(tmp_path / "run")

    code = pod.run(Fault(at=3, passes=FOR_EVER, rows_that_fit=1))

    assert code == 0
    assert pod.losses() == undisturbed(pod.plan)["losses"]
    assert pod.ending() == undisturbed(pod.plan)["ending"]
    assert len(pod.notices()) == 2


@pytest.mark.parametrize("method", list(MethodName))
def test_out_of_memory_in_an_evaluation_halves_its_batch_and_changes_no_loss(
    tmp_path: Path, method: MethodName, undisturbed: Callable[[Plan], dict[str, Any]]
) -> None:
    plan = plan_for(method)
    pod = PodFolder(tmp_path / "run", plan)
    fits = 2 if method is MethodName.SFT else 4

    code = pod.run(Fault(passes=FOR_EVER, is_training=False, rows_that_fit=fits))

    assert code == 0
    assert pod.losses() == undisturbed(plan)["losses"]
    assert pod.ending() == undisturbed(plan)["ending"]
    assert pod.scores() == undisturbed(plan)["scores"]
    assert "out of memory in an evaluation" in pod.notices()[0]
    assert "becomes batch 4 x accumulation 1, evaluation batch 2" in pod.notices()[0]


def test_a_start_after_a_kill_does_not_run_out_again(tmp_path: Path) -> None:
    pod = PodFolder(tmp_path / "run")
    small_memory = Fault(passes=FOR_EVER, rows_that_fit=2)
    # 1 pass that does not fit, then 2 a step.
    pod.run(small_memory, Fault(at=14, sends=signal.SIGKILL))

    code = pod.run(small_memory)

    assert code == 0
    assert len([what for what in pod.notices() if "out of memory" in what]) == 1


def test_a_model_that_does_not_fit_at_all_ends_with_exit_code_5(tmp_path: Path) -> None:
    pod = PodFolder(tmp_path / "run")

    code = pod.run(Fault(passes=FOR_EVER, rows_that_fit=0))

    (failed,) = pod.events(EventKind.FAILED)
    assert code == 5
    assert failed.body["error"] == "OutOfMemory"
    assert json.loads((pod.output / BATCH_SIZES_FILE).read_text())["train"] == 1
