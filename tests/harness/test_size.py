"""The size gate measures the parcel itself: what it says is what a launch would send."""

from podproof.compiler.ir import PodScript
from podproof.compiler.limits import Size
from podproof.harness.size import measured_sizes
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
