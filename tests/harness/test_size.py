"""The size gate measures the parcel itself: what it says is what a launch would send."""

import pytest

from podproof.compiler.ir import PodScript
from podproof.compiler.limits import Size
from podproof.harness.size import kernel_problems, measured_sizes, size_answer
from podproof.harness.verdict import Surroundings
from podproof.launcher.launch import LaunchOrder, pod_requests
from tests.harness.conftest import script_of


def test_the_gate_counts_the_variables_that_a_launch_sends(sound: PodScript) -> None:
    request = pod_requests(sound, LaunchOrder("tiny-sft-20260101-000000-abcd"))[0]

    # The collector's address and token come on top.
    assert measured_sizes(sound)[Size.ENV_COUNT] == len(request.env) + 2


def test_a_variable_of_the_config_counts() -> None:
    plain = measured_sizes(script_of("experiment=tiny_sft"))
    more = measured_sizes(script_of("experiment=tiny_sft", "pod.env.NOTE=hello"))

    assert more[Size.ENV_COUNT] == plain[Size.ENV_COUNT] + 1
    # The config's hash is in the script, so the payload changes a little too.
    grown = (more[Size.ENV_TOTAL] - more[Size.PAYLOAD]) - (
        plain[Size.ENV_TOTAL] - plain[Size.PAYLOAD]
    )
    assert grown == len("NOTE=hello\0")


def test_a_process_is_started_with_all_that_the_pod_gets(sound: PodScript) -> None:
    summary, problems = size_answer(sound, Surroundings())

    assert summary.endswith("a process started with it")
    assert problems == ()


@pytest.mark.parametrize("value", ["x" * 131_072, "nothing \0 ends here"])
def test_what_no_process_can_be_started_with_is_refused(value: str) -> None:
    (problem,) = kernel_problems("exit 0", [("PS_00", "fine"), ("NOTE", value)])

    assert problem.where == "environment"
    assert "no process can be started" in problem.what


def test_the_largest_string_that_the_kernel_takes_is_taken() -> None:
    # MAX_ARG_STRLEN counts the name, the equals sign and the end.
    assert kernel_problems("exit 0", [("NOTE", "x" * (131_072 - len("NOTE=") - 1))]) == ()
