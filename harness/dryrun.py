"""The dry run: the script's own callback against simulated runs, no torch imported.

First the scenarios every script is tried on, then streams that Hypothesis draws, with faults in
them. A stream that fails is made as small as it gets, saved, and can be played again.

Each scenario ends with the questions a rented pod would answer too late: did a hook fail, did the
trainer find a score at every evaluation, would it load the checkpoint that the record calls best,
is that the argmin of what was reported, does a killed run choose the same after a restart, also
with the same callback in the same process, and do all ranks decide the same.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from hypothesis import given

from podproof.harness.asking import attack
from podproof.harness.budget import OverBudgetError
from podproof.harness.drawn import Subject, subject_of
from podproof.harness.drawn_streams import known_streams, streams_for
from podproof.harness.simulator import Scenario, Simulated, SimulatedTrainer, TrainerState
from podproof.harness.streams import FaultStream, play, save_stream
from podproof.harness.witness import Seen, Violation
from podproof.runtime.errors import Problem
from podproof.runtime.events import number_or_none, strict_json
from podproof.runtime.plan import MethodName, Objective, ScorerPlan


class Scripted(Protocol):
    """The two things of a plan that a dry run depends on."""

    @property
    def scorer(self) -> ScorerPlan:
        """Return the scorer's section."""

    @property
    def method(self) -> MethodName:
        """Return the method, whose keys the trainer logs."""


def scenarios(method: MethodName) -> tuple[Scenario, ...]:
    """Return the runs every script is tried on, in its method's terms."""
    nan, inf = math.nan, math.inf
    return (
        Scenario("a plain run", method),
        Scenario("the best in the middle", method, eval_losses=(2.0, 1.0, 1.5, 1.8)),
        Scenario("evaluation before any train log", method, logging_steps=50),
        Scenario("a NaN evaluation first", method, eval_losses=(nan, 2.0, 1.5, 1.6)),
        Scenario("a NaN evaluation in between", method, eval_losses=(2.0, nan, 1.5, 1.6)),
        Scenario("infinite evaluations", method, eval_losses=(-inf, 1.9, inf, 1.6)),
        Scenario("an evaluation without a loss", method, drop_eval_loss_at=frozenset({1})),
        Scenario("train losses hidden as 0.0", method, train_losses=(2.0, 0.0, 0.0)),
        Scenario("NaN train losses", method, train_losses=(nan, nan, 1.0)),
        Scenario("equal evaluations", method, eval_losses=(1.5, 1.5, 1.5, 1.5)),
        Scenario("losses beyond any exponent", method, eval_losses=(1e308, 900.0, 800.0)),
        Scenario("negative losses", method, eval_losses=(-1.0, -1.5, -1.2)),
        Scenario("a last step off the grid", method, max_steps=18),
        Scenario("several micro-batches a step", method, micro_batches=4),
        Scenario("an evaluation before the first step", method, eval_on_start=True),
        Scenario(
            "two eval sets", method, eval_losses=(2.0, 1.0, 1.5, 1.8), eval_sets=("near", "far")
        ),
        Scenario(
            "a callback that takes the score away",
            method,
            eval_losses=(2.0, 1.0, 1.5, 1.8),
            taken_keys=frozenset({"eval_checkpoint_score"}),
        ),
    )


_WAY_OUT = "mend the formula or choose scorer=robust; a fault of podproof's own: please report it"


def failed_dry_runs(code: Any, plan: Scripted) -> tuple[Problem, ...]:
    """Return a problem for each scenario that the embedded callback does not survive rightly."""
    return tuple(
        Problem(f"dryrun.{scenario.name}", what, _WAY_OUT)
        for scenario in scenarios(plan.method)
        for what in _complaints(code, plan, scenario)
    )


@dataclass(frozen=True)
class FailingStream:
    """The smallest stream found that breaks an invariant, and the event it breaks it at."""

    stream: FaultStream
    number: int
    seen: Seen
    violation: Violation


def failing_stream(code: Any, plan: Scripted, examples: int) -> FailingStream | None:
    """Return the smallest stream with faults that the embedded callback fails; None: it fails none.

    Raise OverBudgetError when the time is over before every example was played.
    """
    subject = subject_of(code, plan.scorer)
    # Hypothesis plays the smallest one last.
    found: list[FailingStream] = []

    @attack(examples)
    @given(streams_for(plan.method))
    def check(stream: FaultStream) -> None:
        found.extend(_first_failure(stream, subject))
        assert not found or found[-1].stream != stream

    try:
        check()
    except AssertionError:
        return found[-1]
    except OverBudgetError:
        if not found:
            raise
        return found[-1]  # as small as it got
    known = (_first_failure(stream, subject) for stream in known_streams(plan.method))
    return next((failure for failures in known for failure in failures), None)


def _first_failure(stream: FaultStream, subject: Subject) -> list[FailingStream]:
    """Return the first invariant that a stream breaks, if it breaks one."""
    for number, seen in enumerate(play(stream, subject).seen):
        for violation in seen.broken:
            return [FailingStream(stream, number, seen, violation)]
    return []


def stream_problem(failing: FailingStream, home: Path | None) -> Problem:
    """Return the problem that a failing stream is; the stream is saved where there is a home."""
    violation, seen = failing.violation, failing.seen
    what = (
        f"{violation.what}; at {seen.event} of step {seen.step}, event {failing.number}"
        f" of the smallest stream: {in_short(failing.stream)}"
    )
    page = f"docs/explanation/dry-run.md#{violation.invariant}"
    if home is None:
        return Problem(f"dryrun.{violation.invariant}", what, f"what is asked: {page}")
    path = save_stream(failing.stream, home)
    way_out = f"see it happen: podproof replay {path} --script pod_script.py; what is asked: {page}"
    return Problem(f"dryrun.{violation.invariant}", what, way_out)


def in_short(stream: FaultStream) -> str:
    """Return a stream in a line: its method, and every field that is not as usual.

    >>> in_short(FaultStream(MethodName.SFT, max_steps=1))
    'sft, max_steps=1'
    """
    usual = FaultStream(stream.method)
    told = {
        field.name: getattr(stream, field.name)
        for field in dataclasses.fields(stream)
        if getattr(stream, field.name) != getattr(usual, field.name)
    }
    told |= {"faults": [f"{fault.kind.value} at event {fault.event}" for fault in stream.faults]}
    named = [f"{name}={value}" for name, value in told.items() if value != []]
    return ", ".join([stream.method.value, *named])


def _complaints(code: Any, plan: Scripted, scenario: Scenario) -> Iterator[str]:
    run = _DryRun(code, plan)
    try:
        ended = SimulatedTrainer(scenario, run.callback).train()
    except Exception as error:  # whatever the embedded code raises is the finding
        yield f"the trainer would have died of {type(error).__name__}: {error}"
        return
    yield from run.complaints(ended)
    for what, other in _other_ways(code, plan, scenario):
        if _chosen(other) != _chosen(ended.state):
            yield f"chose step {ended.state.best_global_step}, but {what} {other.best_global_step}"


def _other_ways(
    code: Any, plan: Scripted, scenario: Scenario
) -> Iterator[tuple[str, TrainerState]]:
    """Yield final states that must be those of the undisturbed run, with how they came about."""
    half = scenario.eval_steps * max(1, scenario.max_steps // (2 * scenario.eval_steps))
    first, again = _DryRun(code, plan).callback, _DryRun(code, plan).callback
    killed = SimulatedTrainer(scenario, first).train(until_step=half).state
    yield (
        "after a kill and a restart step",
        SimulatedTrainer(scenario, again, state=killed).train().state,
    )
    # As after running out of memory: the callback is the one that saw the first attempt.
    yield (
        "begun again from a save step",
        SimulatedTrainer(scenario, first, state=killed).train().state,
    )
    yield "begun again from nothing step", SimulatedTrainer(scenario, first).train().state
    rank = replace(scenario, seconds=7.0, is_first_rank=False)
    yield "on another rank step", SimulatedTrainer(rank, _DryRun(code, plan).callback).train().state


def _chosen(state: TrainerState) -> tuple[int | None, float | None]:
    return state.best_global_step, state.best_metric


class _DryRun:
    """One embedded callback with a recorder in place of the reporter."""

    def __init__(self, code: Any, plan: Scripted) -> None:
        self.plan = plan
        self.events: list[tuple[str, int | None, dict[str, Any]]] = []
        section = subject_of(code, plan.scorer).own_plan
        self.callback = code.PodCallback(section, self._record, code.StopRequest())

    def _record(
        self,
        kind: Any,
        *,
        step: int | None = None,
        epoch: float | None = None,  # noqa: ARG002 - the reporter's signature
        body: dict[str, Any],
    ) -> None:
        as_json = strict_json(body)
        assert isinstance(as_json, dict)
        self.events.append((str(kind.value), step, as_json))

    def complaints(self, ended: Simulated) -> Iterator[str]:
        """Say what is wrong with the run that was just simulated."""
        for what, count in self.callback.failures.items():
            yield f"a hook failed {count} times: {what}"
        reported = [
            (step, body["score"]) for kind, step, body in self.events if kind == "evaluation"
        ]
        # An evaluation that lost its loss counts: it is scored too, as unusable.
        evaluated = sorted({entry["step"] for entry in ended.state.log_history if _is_eval(entry)})
        if [step for step, _ in reported] != evaluated:
            yield f"evaluated at {evaluated}, reported at {[step for step, _ in reported]}"
        best = lowest = _argmin(reported)
        if self.plan.scorer.objective is Objective.REWARD:
            # The choice at the end is by another rule, which the scorer gate asks about.
            best = ended.state.best_global_step
        elif ended.state.best_global_step != best:
            loaded = ended.state.best_global_step
            yield f"the trainer would load step {loaded}, the scores say {best}"
        if self.callback.scores.best_step != lowest:
            recorded = self.callback.scores.best_step
            yield f"the record calls {recorded} best, the scores say {lowest}"
        if best is not None and best not in ended.saved_steps:
            yield f"no checkpoint was saved at the best step {best}"
        told = [step for kind, step, _ in self.events if kind == "checkpoint_saved"]
        if told != list(ended.saved_steps):
            yield f"saved at {list(ended.saved_steps)}, reported {told}"


def _is_eval(entry: Mapping[str, Any]) -> bool:
    return any(key.startswith("eval_") for key in entry)


def _argmin(reported: list[tuple[int | None, Any]]) -> int | None:
    # Before the first step there is no checkpoint to choose.
    usable = [(number_or_none(score), step) for step, score in reported if step]
    finite = [(score, step) for score, step in usable if score is not None and score < math.inf]
    return min(finite, key=lambda pair: pair[0])[1] if finite else None
