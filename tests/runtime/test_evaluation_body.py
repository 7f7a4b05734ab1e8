import math
from collections.abc import Mapping
from typing import Any

from podproof.harness.simulator import Scenario, SimulatedTrainer
from podproof.runtime.callback import PodCallback, StopRequest
from podproof.runtime.events import EventKind
from podproof.runtime.plan import MethodName, ScorerPlan


def test_the_word_for_the_trend_is_found_where_the_event_is_read_and_not_in_the_hook() -> None:
    bodies: list[Mapping[str, Any]] = []

    def keep(kind: EventKind, *, body: Mapping[str, Any], **_event: Any) -> None:
        if kind is EventKind.EVALUATION:
            bodies.append(body)

    callback = PodCallback(ScorerPlan(), keep, StopRequest())
    losses = (3.0, math.nan, 2.5, 2.4, 2.2, 2.1, 2.0)
    scenario = Scenario("falling", MethodName.SFT, logging_steps=1, train_losses=losses)
    SimulatedTrainer(scenario, callback).train()
    asked = callback.trend

    assert not any(isinstance(body, dict) for body in bodies)
    assert [body["nonfinite_train_logs"] for body in bodies] == [1, 1, 1, 1]
    assert [body["trend"] for body in bodies] == ["not_enough_data", "improving", "flat", "flat"]
    assert callback.trend == asked
