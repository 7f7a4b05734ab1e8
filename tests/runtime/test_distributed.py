"""Real runs of two processes on the CPU, over gloo: they end alike, whatever befalls one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.ranks_world import (
    Ended,
    ended,
    free_port,
    processes_left,
    run,
    run_with_fault,
    start,
    state_of,
    write_script,
)

from podproof.runtime.checkpoints import file_sha256
from podproof.runtime.events import EventKind

METHODS = ("sft", "dpo", "orpo")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Ended]]:
    """Run each method once with two processes."""
    runs: dict[str, tuple[Path, Ended]] = {}

    def run_of(method: str) -> tuple[Path, Ended]:
        if method not in runs:
            folder = tmp_path_factory.mktemp(method)
            write_script(folder, f"experiment=tiny_{method}", "pod.gpu_count=2")
            runs[method] = folder, run(folder)
        return runs[method]

    return run_of


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Hold a script for two processes; none of them may be left when the test is over."""
    write_script(tmp_path, "experiment=tiny_sft", "pod.gpu_count=2")
    yield tmp_path
    assert processes_left(tmp_path) == []


def assert_as_undisturbed(disturbed: Ended, other: Ended) -> None:
    """Both came to the same end, by the same losses, and no step is missing from the record."""
    assert disturbed.code == 0
    assert disturbed.losses() == other.losses()
    kept = ("best_step", "best_score", "final_step")
    last, wanted = disturbed.events[-1], other.events[-1]
    assert last.kind is wanted.kind is EventKind.DONE
    assert [last.body[key] for key in kept] == [wanted.body[key] for key in kept]


# The same run, parted over two processes.


def test_two_processes_end_as_one_run(undisturbed: Callable[[str], tuple[Path, Ended]]) -> None:
    folder, two = undisturbed("sft")

    output = folder / "podproof-output"
    assert two.code == 0
    assert [event.seq for event in two.events] == list(range(len(two.events)))
    assert len(two.bodies(EventKind.STARTED)) == len(two.bodies(EventKind.DONE)) == 1
    assert "batch 2 x accumulation 1 x 2 GPUs = 4 sequences per step" in two.said
    assert not (output / "ranks").exists()


def test_each_rank_leaves_its_random_state_and_the_first_the_rest(
    undisturbed: Callable[[str], tuple[Path, Ended]],
) -> None:
    folder, _ = undisturbed("sft")

    checkpoint = folder / "podproof-output" / "checkpoint-4"
    names = {path.name for path in checkpoint.iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt", "model.safetensors"} <= names


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_learn_what_one_with_twice_the_accumulation_learns(
    undisturbed: Callable[[str], tuple[Path, Ended]], tmp_path: Path, method: str
) -> None:
    write_script(tmp_path, f"experiment=tiny_{method}", "trainer.gradient_accumulation_steps=2")
    _, two = undisturbed(method)

    one = run(tmp_path)

    assert one.code == two.code == 0
    assert two.losses() == pytest.approx(one.losses(), abs=2e-4)
    assert two.events[-1].body["best_step"] == one.events[-1].body["best_step"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_delivered_is_what_the_best_checkpoint_holds(
    undisturbed: Callable[[str], tuple[Path, Ended]], method: str
) -> None:
    folder, two = undisturbed(method)

    output, best = folder / "podproof-output", two.events[-1].body["best_step"]
    chosen = state_of(folder, two.events[-1].body["final_step"])["best_global_step"]
    checkpoint = output / f"checkpoint-{best}" / "model.safetensors"
    assert chosen == best
    assert file_sha256(output / "delivered" / "model.safetensors") == file_sha256(checkpoint)


# A stop that only one process hears of.


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("fault", "rank"), [("stop", 1), ("stop", 0), ("stop starter", 0)])
def test_a_stop_that_one_process_hears_stops_all_at_that_step_and_loses_nothing(
    undisturbed: Callable[[str], tuple[Path, Ended]], folder: Path, fault: str, rank: int
) -> None:
    _, other = undisturbed("sft")

    stopped = run_with_fault(folder, fault, rank=rank, step=5)
    resumed = run(folder)

    assert stopped.code == 143
    assert stopped.bodies(EventKind.PREEMPTED) == [{"reason": "SIGTERM"}]
    assert stopped.events[-1].step == 6
    assert_as_undisturbed(resumed, other)


# One process that fails.


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("fault", "rank"), [("raise", 1), ("raise", 0), ("kill", 1), ("kill", 0)])
def test_a_process_that_fails_ends_the_others_and_a_restart_goes_on(
    undisturbed: Callable[[str], tuple[Path, Ended]], folder: Path, fault: str, rank: int
) -> None:
    _, other = undisturbed("sft")

    failed = run_with_fault(folder, fault, rank=rank, step=5)
    resumed = run(folder)

    assert failed.code == 1
    assert not failed.bodies(EventKind.DONE)
    assert str(resumed.bodies(EventKind.RESUMED)[0]["path"]).endswith("checkpoint-4")
    assert_as_undisturbed(resumed, other)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_process_outlives_a_starter_that_was_killed(
    undisturbed: Callable[[str], tuple[Path, Ended]], folder: Path
) -> None:
    _, other = undisturbed("sft")

    killed = run_with_fault(folder, "kill starter", rank=0, step=5)
    left = processes_left(folder)
    resumed = run(folder)

    assert (killed.code, left) == (-9, [])
    assert_as_undisturbed(resumed, other)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_process_out_of_memory_makes_all_start_again_with_half_a_batch(
    undisturbed: Callable[[str], tuple[Path, Ended]], folder: Path
) -> None:
    _, other = undisturbed("sft")

    again = run_with_fault(folder, "oom", rank=1, step=5)

    notices = [body["what"] for body in again.bodies(EventKind.NOTICE)]
    what = "batch 1 x accumulation 2, evaluation batch 2"
    assert f"all ranks start again after one ran out of memory: {what}" in notices
    assert again.bodies(EventKind.FAILED) == []
    assert_as_undisturbed(again, other)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_events_of_ranks_that_begin_anew_are_numbered_on(folder: Path) -> None:
    faults = {"FAULT": "oom", "FAULT_RANK": "1", "FAULT_STEP": "5", "PODPROOF_BOOT": "3"}

    again = run(folder, "driver.py", **faults)

    ids = [event.event_id for event in again.events]
    assert again.code == 0
    assert {event.boot for event in again.events} == {3}
    assert len(ids) == len(set(ids))
    assert [event.seq for event in again.events] == sorted(event.seq for event in again.events)


# What no process can mend.


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bad_data_is_told_once_and_keeps_its_exit_code(folder: Path) -> None:
    refused = run(folder, PODPROOF_DATA=str(folder / "nowhere"))

    assert refused.code == 3
    assert [event.kind for event in refused.events] == [EventKind.FAILED]
    assert refused.events[0].body["error"] == "BadData"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ranks_that_another_launcher_started_in_another_number_are_refused(folder: Path) -> None:
    refused = run(folder, LOCAL_RANK="0", RANK="0", WORLD_SIZE="3")

    assert refused.code == 2
    assert "the plan is for 2 processes, and a launcher started 3" in refused.said
    assert refused.events == []


# Several nodes, here on one machine.


def start_nodes(folder: Path, **outputs: str) -> Iterator[Ended]:
    """Start two nodes of one process each; yield how they ended."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    nodes = [
        start(folder, NODE_RANK=rank, GLOO_SOCKET_IFNAME="lo", PODPROOF_OUTPUT=output, **address)
        for rank, output in zip(("0", "1"), outputs.values(), strict=True)
    ]
    for node in nodes:
        yield ended(folder, node)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_nodes_end_as_two_processes_left_one(
    undisturbed: Callable[[str], tuple[Path, Ended]], tmp_path: Path
) -> None:
    write_script(tmp_path, "experiment=tiny_sft", "pod.gpu_count=1", "pod.node_count=2")
    _, other = undisturbed("sft")
    output = str(tmp_path / "podproof-output")

    first, second = start_nodes(tmp_path, first=output, second=output)

    assert (first.code, second.code) == (0, 0)
    assert_as_undisturbed(second, other)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nodes_that_do_not_share_their_output_are_refused(tmp_path: Path) -> None:
    write_script(tmp_path, "experiment=tiny_sft", "pod.gpu_count=1", "pod.node_count=2")
    outputs = {"first": str(tmp_path / "podproof-output"), "second": str(tmp_path / "elsewhere")}

    first, second = start_nodes(tmp_path, **outputs)

    problems: Any = second.bodies(EventKind.FAILED)[0]["problems"]
    assert (first.code, second.code) == (2, 2)
    assert problems[0].startswith("PODPROOF_OUTPUT: is not one folder that all nodes share")


# Parted weights. Accelerate shards on accelerators only; the driver lifts that, and the rest is
# what happens on GPUs, over gloo.


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fsdp_learns_the_same_delivers_whole_weights_and_resumes(
    undisturbed: Callable[[str], tuple[Path, Ended]], tmp_path: Path
) -> None:
    write_script(tmp_path, "experiment=tiny_sft", "pod.gpu_count=2", "trainer.fsdp=true")
    faults = {"FAULT": "stop", "FAULT_RANK": "1", "FAULT_STEP": "5", "SHARD_ON_CPU": "1"}
    _, other = undisturbed("sft")

    stopped = run(tmp_path, "driver.py", **faults)
    resumed = run(tmp_path, "driver.py", **{**faults, "FAULT_RANK": "none"})

    output = tmp_path / "podproof-output"
    delivered = {path.name for path in (output / "delivered").iterdir()}
    assert stopped.code == 143
    assert resumed.losses() == pytest.approx(other.losses(), abs=2e-4)
    assert (output / "checkpoint-10" / "optimizer.bin").is_file()
    assert "model.safetensors" in delivered
    assert not {"optimizer.bin", "pytorch_model_fsdp.bin"} & delivered
