"""How Hypothesis works in every test: the same examples on every machine, and no stop-watch."""

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
