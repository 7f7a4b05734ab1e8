"""How Hypothesis works in every test: the same examples on every machine, and no stop-watch."""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "podproof",
    deadline=None,
    derandomize=True,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow],
)
# To look for new examples: pytest --hypothesis-profile=explore
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("podproof")


def pytest_configure() -> None:
    """Let the processes that tests start hear SIGINT.

    A shell that starts a job in the background has it ignored, and an ignored signal stays ignored
    in every process below.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
