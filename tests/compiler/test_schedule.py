"""The learning rate at points of a run, against what transformers' own schedules give."""

import math

import pytest

from podproof.compiler.schedule import learning_rates

# transformers.get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=200,
# scheduler_specific_kwargs=options).lr_lambdas[0](step) at steps 20, 100, 180 and 200.
FACTORS: tuple[tuple[str, int, dict[str, float], tuple[float, ...]], ...] = (
    ("linear", 10, {}, (0.947368421053, 0.526315789474, 0.105263157895, 0.0)),
    ("linear", 50, {}, (0.4, 0.666666666667, 0.133333333333, 0.0)),
    ("cosine", 10, {}, (0.993180651701, 0.541289672736, 0.02709137915, 0.0)),
    ("cosine", 0, {"num_cycles": 1.5}, (0.793892626146, 0.5, 0.206107373854, 0.0)),
    (
        "cosine_with_restarts",
        10,
        {"num_cycles": 3},
        (0.939736875603, 0.62274274357, 0.226525920939, 0.0),
    ),
    ("constant", 10, {}, (1.0, 1.0, 1.0, 1.0)),
    ("constant_with_warmup", 50, {}, (0.4, 1.0, 1.0, 1.0)),
)


@pytest.mark.parametrize(("name", "warmup", "options", "factors"), FACTORS)
def test_a_schedule_is_that_of_transformers(
    name: str, warmup: int, options: dict[str, float], factors: tuple[float, ...]
) -> None:
    arguments = {
        "lr_scheduler_type": name,
        "warmup_steps": warmup,
        "learning_rate": 1.0,
        "lr_scheduler_kwargs": options,
    }

    rates = learning_rates(arguments, 200)

    assert rates is not None
    assert rates.pop("peak") == 1.0
    assert list(rates.values()) == pytest.approx(factors, abs=1e-9)


def test_a_warm_up_below_one_is_a_share_of_the_run() -> None:
    as_share = learning_rates({"warmup_steps": 0.1, "learning_rate": 1.0}, 200)

    assert as_share == learning_rates({"warmup_steps": 20, "learning_rate": 1.0}, 200)


def test_a_run_without_a_known_length_has_a_shape_when_its_warm_up_is_a_share() -> None:
    assert learning_rates({"warmup_steps": 0.1}, None) is not None
    assert learning_rates({"warmup_steps": 100}, None) is None


@pytest.mark.parametrize("name", ["reduce_lr_on_plateau", "no_such_schedule"])
def test_a_schedule_that_follows_a_metric_is_not_guessed(name: str) -> None:
    assert learning_rates({"lr_scheduler_type": name}, 200) is None


def test_a_warm_up_longer_than_the_run_never_reaches_the_peak() -> None:
    rates = learning_rates({"warmup_steps": 400, "learning_rate": 1.0}, 200)

    assert rates is not None
    assert math.isclose(rates["peak"], 0.5)
