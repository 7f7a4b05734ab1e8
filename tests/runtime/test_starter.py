"""How the processes of a run are started, and what becomes of their exit codes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.runtime.test_plan import PLAN

from podproof.runtime.errors import BadPlan
from podproof.runtime.starter import (
    leave_ending,
    node_arguments,
    node_ranks,
    prepare_environment,
    run_code,
)

ONE_NODE = replace(PLAN, gpu_count=2)
CLUSTER = replace(PLAN, gpu_count=8, node_count=3)
# As RunPod sets them on the second node of an Instant Cluster.
RUNPOD = {
    "PRIMARY_ADDR": "10.65.0.2",
    "PRIMARY_PORT": "29400",
    "MASTER_ADDR": "10.65.0.2",
    "MASTER_PORT": "29400",
    "NODE_ADDR": "10.65.0.3",
    "NODE_RANK": "1",
    "NUM_NODES": "3",
    "NUM_TRAINERS": "8",
    "HOST_NODE_ADDR": "10.65.0.2:29400",
    "WORLD_SIZE": "24",
}


def leave_endings(folder: Path, codes: dict[int, int]) -> None:
    for rank, code in codes.items():
        leave_ending(folder, rank, code)


def test_one_machine_needs_no_address() -> None:
    arguments = node_arguments(ONE_NODE, {})

    assert arguments == ["--standalone", "--nproc-per-node=2", "--shutdown-timeout=86400"]


def test_a_node_of_a_runpod_cluster_is_told_from_its_variables() -> None:
    arguments = node_arguments(CLUSTER, RUNPOD)

    assert arguments == [
        "--nnodes=3",
        "--node-rank=1",
        "--master-addr=10.65.0.2",
        "--master-port=29400",
        "--nproc-per-node=8",
        "--shutdown-timeout=86400",
    ]


def test_the_newer_names_of_the_address_do_as_well() -> None:
    newer = {name: value for name, value in RUNPOD.items() if not name.startswith("MASTER")}

    assert node_arguments(CLUSTER, newer) == node_arguments(CLUSTER, RUNPOD)


def test_only_address_port_and_rank_are_needed_elsewhere() -> None:
    by_hand = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "NODE_RANK": "0"}

    assert "--node-rank=0" in node_arguments(CLUSTER, by_hand)


def test_a_plan_for_a_cluster_says_everything_that_a_lone_machine_lacks() -> None:
    with pytest.raises(BadPlan) as refused:
        node_arguments(CLUSTER, {})

    assert {problem.where for problem in refused.value.problems} == {
        "NODE_RANK",
        "MASTER_ADDR",
        "MASTER_PORT",
    }


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("NUM_NODES", "2", "must be 3 for this plan, got '2'"),
        ("NUM_TRAINERS", "4", "must be 8 for this plan, got '4'"),
        ("NODE_RANK", "3", "must be from 0 to 2 for this plan, got '3'"),
        ("NODE_RANK", "-1", "must be from 0 to 2 for this plan, got '-1'"),
        ("MASTER_PORT", "0", "must be from 1 to 65535 for this plan, got '0'"),
    ],
)
def test_another_cluster_than_the_planned_one_is_refused(name: str, value: str, what: str) -> None:
    with pytest.raises(BadPlan) as refused:
        node_arguments(CLUSTER, {**RUNPOD, name: value})

    assert [(problem.where, problem.what) for problem in refused.value.problems] == [(name, what)]


@pytest.mark.parametrize(("rank", "ranks"), [("0", range(8)), ("2", range(16, 24))])
def test_a_node_knows_its_own_ranks(rank: str, ranks: range) -> None:
    assert node_ranks(CLUSTER, {"NODE_RANK": rank}) == ranks


def test_a_leftover_node_rank_means_nothing_on_one_machine() -> None:
    assert node_ranks(ONE_NODE, {"NODE_RANK": "5"}) == range(2)


def test_nodes_of_a_runpod_cluster_talk_over_its_inner_network() -> None:
    environ: dict[str, str] = {}

    prepare_environment(environ, CLUSTER, ["lo", "eth0", "ens1"])

    assert environ["NCCL_SOCKET_IFNAME"] == environ["GLOO_SOCKET_IFNAME"] == "ens1"


def test_one_machine_talks_to_itself_over_the_loopback() -> None:
    environ: dict[str, str] = {}

    prepare_environment(environ, ONE_NODE, ["lo", "eth0", "ens1"])

    assert environ["GLOO_SOCKET_IFNAME"] == "lo"
    assert "NCCL_SOCKET_IFNAME" not in environ


def test_what_the_environment_says_already_stands() -> None:
    said = {"OMP_NUM_THREADS": "3", "NCCL_SOCKET_IFNAME": "ib0", "GLOO_SOCKET_IFNAME": "ib0"}
    environ = dict(said)

    prepare_environment(environ, CLUSTER, ["ens1"])

    assert environ == said


def test_each_process_gets_its_share_of_the_cores_and_one_at_least() -> None:
    environ: dict[str, str] = {}

    prepare_environment(environ, replace(PLAN, gpu_count=4096), [])

    assert environ["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("codes", "of_the_run"),
    [
        ({0: 0, 1: 0}, 0),
        ({0: 143, 1: 143}, 143),
        ({0: 1, 1: 3}, 3),
        ({0: 4, 1: 0}, 4),
        ({0: 1, 1: 143}, 143),
        ({0: 3, 1: 143}, 3),
        ({0: 0}, 1),
        ({}, 1),
    ],
    ids=[
        "done",
        "stopped",
        "bad data on one",
        "delivery",
        "interrupted",
        "bad data first",
        "one killed",
        "all",
    ],
)
def test_the_code_of_a_run_is_that_of_the_rank_that_caused_it(
    tmp_path: Path, codes: dict[int, int], of_the_run: int
) -> None:
    leave_endings(tmp_path, codes)

    assert run_code(tmp_path, range(2)) == of_the_run


def test_an_ending_that_cannot_be_read_counts_as_failed(tmp_path: Path) -> None:
    (tmp_path / "0").write_text(json.dumps("none"))

    assert run_code(tmp_path, range(1)) == 1


def test_another_node_counts_by_what_it_left_and_may_be_at_work_still(tmp_path: Path) -> None:
    leave_endings(tmp_path, {2: 0, 3: 0})
    at_work = run_code(tmp_path, range(2, 4))
    leave_endings(tmp_path, {0: 4})

    assert (at_work, run_code(tmp_path, range(2, 4))) == (0, 4)
