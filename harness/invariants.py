"""What must hold of an embedded callback, event by event, whoever fires the events.

`Process` follows one callback through its life and knows from the logs alone what it must say, show
to the trainer and decide. Each invariant is a method that yields what breaks it; the page
docs/explanation/dryrun.md has a paragraph for each name.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from podproof.harness.expected import (
    Line,
    Scored,
    best_of,
    expected_choice,
    expected_score,
    is_scored,
    line_of,
    since_best,
)
from podproof.harness.expected_trend import allowed_stops, expected_word, train_losses_of
from podproof.runtime.events import strict_json
from podproof.runtime.plan import Objective, ScorerPlan

FLAGS = ("should_training_stop", "should_save", "should_evaluate", "should_log")
BOOKS = ("best_global_step", "best_metric", "best_model_checkpoint")

Told = tuple[str, int | None, float | None, Any]


@dataclass(frozen=True)
class HookCall:
    """One event and what came of it: the trainer's values before and after, and what was told.

    `given` is a copy of the log or metrics as the trainer gave them, `shown` the dictionary itself.
    `raised` is what the reporter was made to raise, `escaped` what left the hook.
    """

    event: str
    args: Any
    state: Any
    control: Any
    flags: Mapping[str, bool]
    books: Mapping[str, Any]
    given: Mapping[str, Any] | None
    shown: Mapping[str, Any] | None
    told: Sequence[Told] = ()
    raised: Sequence[BaseException] = ()
    escaped: BaseException | None = None
    is_asked_to_stop: bool = False


@dataclass
class Process:
    """One callback, the logs it was given, and the scores it reported; `scores` of its run so far.

    `words` are those of every train log, `failures` what its hooks must have counted.
    """

    code: Any
    plan: ScorerPlan
    own_plan: Any
    callback: Any
    lines: list[Line] = field(default_factory=list)
    words: list[str | None] = field(default_factory=list)
    scores: list[Scored] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    is_stopped: bool | None = False
    choice: Scored | None = None
    started_s: float = field(default_factory=time.perf_counter)

    def broken(self, call: HookCall) -> Iterator[tuple[str, str]]:
        """Yield name and description of every invariant that this call broke."""
        self._take_in(call)
        for name, check in _CHECKS.items():
            for what in check(self, call):
                yield name, what
        if getattr(self.callback, call.event, None) is not None:
            self.calls[call.event] += 1

    def broken_at_end(self) -> Iterator[tuple[str, str]]:
        """Yield what the callback remembers otherwise than it was told, when its process ends."""
        # Either may be asked first, and must have caught up by itself.
        trend = self.callback.trend if self.calls["on_step_end"] % 2 else None
        remembered, best = self.callback.scores, best_of(self.scores)
        trend = trend or self.callback.trend
        if (remembered.best_step, remembered.best_score) != (best or (None, math.inf)):
            yield "remembered", f"{remembered} is kept of {self.scores}"
        if remembered.since_best != since_best(self.scores, self.plan.early_stopping.min_delta):
            yield "remembered", f"{remembered.since_best} evaluations since the best: {self.scores}"
        usable = [
            line.loss for line in self.lines if line.kind == "train" and line.loss is not None
        ]
        last = usable[-1] if usable else None
        if remembered.last_train_loss != last:
            yield "remembered", f"{remembered.last_train_loss} is the last train loss, not {last}"
        finite = [loss for loss in train_losses_of(self.lines) if math.isfinite(loss)]
        kept = tuple(finite[-self.plan.trend.window :])
        if trend.losses != kept:
            yield "remembered", f"train losses {trend.losses} are kept, not {kept}"
        counts = {name: cost.count for name, cost in self.callback.costs.items()}
        if counts != dict(self.calls):
            yield "costs", f"hook calls are counted as {counts}, not {dict(self.calls)}"

    def value_at(self, step: int) -> float:
        """Return what the trainer is to compare at a step: NaN without a usable score of it."""
        if not self.scores or self.scores[-1][0] != step or self.scores[-1][1] == math.inf:
            return math.nan
        return -self.scores[-1][1]

    def due(self) -> bool | None:
        """Tell whether the run must end now; None: either way is right."""
        allowed = allowed_stops(self.words, self.scores, self.plan)
        return None not in allowed if len(allowed) == 1 or None not in allowed else None

    def _take_in(self, call: HookCall) -> None:
        if call.event == "on_train_begin":
            self.lines, self.words, self.scores = [], [], []
            self.is_stopped, self.choice = False, None
            for entry in call.state.log_history:
                self._add(line_of(entry))
            self._replay(call.state.log_history)
        elif call.event == "on_log" and call.given:
            self._add(line_of({**call.given, "step": call.state.global_step}))
            values = [body["score"] for kind, _, _, body in call.told if kind == "evaluation"]
            shown = (call.shown or {}).get(self.code.SCORE_KEY, math.nan)
            if is_scored(self.lines):
                # Other ranks tell nothing; what they show to the trainer is the score all the same.
                self.scores.append((self.lines[-1].step, values[0] if values else _score_of(shown)))

    def _add(self, line: Line) -> None:
        self.lines.append(line)
        if line.kind == "train":
            self.words.append(expected_word(train_losses_of(self.lines), self.plan.trend.window))

    def _replay(self, log_history: Sequence[Mapping[str, Any]]) -> None:
        scores = self.code.replay_scores(log_history, self.own_plan)[1]
        self.scores = [(score.step, score.value) for score in scores]


def _score_of(metric: Any) -> float:
    return -metric if isinstance(metric, float) and not math.isnan(metric) else math.inf


def _isolated(_process: Process, call: HookCall) -> Iterator[str]:
    """Ask that nothing but an interrupt leaves a hook."""
    interrupts = [error for error in call.raised if not isinstance(error, Exception)]
    if call.escaped is not (interrupts[0] if interrupts else None):
        yield f"{call.event} let {call.escaped!r} through, where the reporter raised {call.raised}"


def _counted(process: Process, call: HookCall) -> Iterator[str]:
    """Ask that each failure inside a hook is counted by the hook's name, and nothing else is."""
    for error in [error for error in call.raised if isinstance(error, Exception)][:1]:
        process.failures[f"{call.event} raised {type(error).__name__}: {error}"] += 1
    if dict(process.callback.failures) != dict(process.failures):
        yield f"failures {dict(process.callback.failures)}, expected {dict(process.failures)}"


def _scored(process: Process, call: HookCall) -> Iterator[str]:
    """Ask that evaluations are scored as documented, and that the trainer finds a float."""
    is_evaluation = call.event == "on_log" and call.given and process.lines[-1].kind == "evaluation"
    if is_evaluation and is_scored(process.lines):
        expected = expected_score(process.lines, process.plan)
        if not expected.allows(process.scores[-1][1]):
            yield f"step {call.state.global_step} scored {process.scores[-1][1]}, not {expected}"
    if not is_evaluation and not (call.event == "on_evaluate" and call.shown is not None):
        return
    shown = (call.shown or {}).get(process.code.SCORE_KEY)
    expected_value = process.value_at(call.state.global_step)
    if type(shown) is not float or not _is_same(shown, expected_value):
        yield f"the trainer is shown {shown!r}, not {expected_value}"
    if is_evaluation and call.state.log_history:
        kept = call.state.log_history[-1].get(process.code.SCORE_KEY)
        if not _is_same(kept, expected_value):
            yield f"the log on disk shows {kept!r}, not {expected_value}"


def _left_alone(process: Process, call: HookCall) -> Iterator[str]:
    """Ask that nothing else of what the trainer gave is changed."""
    key = process.code.SCORE_KEY
    for name, now in (("log", call.shown), ("history", _last_log(call))):
        then = call.given
        if now is None or then is None:
            continue
        changed = {
            item
            for item in {*now, *then} - {key, "step"}
            if strict_json(now.get(item)) != strict_json(then.get(item))
        }
        if changed:
            yield f"the {name} was changed at {sorted(changed)}"


def _last_log(call: HookCall) -> Mapping[str, Any] | None:
    is_log = call.event == "on_log" and call.state.log_history
    return call.state.log_history[-1] if is_log else None


def _told(process: Process, call: HookCall) -> Iterator[str]:
    """Ask that the first rank tells each log, score, best and checkpoint; others nothing."""
    expected = _expected_kinds(process, call) if call.state.is_world_process_zero else []
    if call.raised:
        expected = expected[:1]
    for what in [
        _failure(call, error) for error in call.raised[:1] if isinstance(error, Exception)
    ]:
        expected += ["notice"] if process.failures[what] == 1 else []
    found = [kind for kind, *_ in call.told]
    if found != expected:
        yield f"{found} was told at {call.event}, not {expected}"
        return
    for kind, step, epoch, body in call.told:
        place = (None, None) if kind == "notice" else (call.state.global_step, call.state.epoch)
        if (step, epoch) != place:
            yield f"{kind} is told of {(step, epoch)}, not {place}"
        for what in _BODIES[kind](process, call, body):
            yield f"{kind}: {what}"


def _expected_kinds(process: Process, call: HookCall) -> list[str]:
    if call.event == "on_log" and call.given:
        if process.lines[-1].kind == "train":
            return ["train_log"]
        if not is_scored(process.lines):
            return []
        is_best = best_of(process.scores) != best_of(process.scores[:-1])
        return ["evaluation", "new_best"] if is_best else ["evaluation"]
    return {"on_save": ["checkpoint_saved"], "on_train_end": ["hook_cost"]}.get(call.event, [])


def _train_log_body(_process: Process, call: HookCall, body: Any) -> Iterator[str]:
    if strict_json(body) != strict_json(dict(call.given or {})):
        yield f"{body}, where {call.given} was logged"


def _evaluation_body(process: Process, call: HookCall, body: Any) -> Iterator[str]:
    given, line = dict(call.given or {}), process.lines[-1]
    key = process.code.SCORE_KEY
    score = process.scores[-1][1]
    word = expected_word(train_losses_of(process.lines), process.plan.trend.window)
    lost = sum(not math.isfinite(loss) for loss in train_losses_of(process.lines))
    expected = {
        "eval_loss": given.get(f"eval_{line.eval_set}_loss" if line.eval_set else "eval_loss"),
        "score": score,
        "checkpoint_score": process.value_at(call.state.global_step),
        "trend": word or body.get("trend"),
        "nonfinite_train_logs": lost,
        "metrics": {name: value for name, value in given.items() if name != key},
    }
    for name, value in expected.items():
        if strict_json(body.get(name)) != strict_json(value):
            yield f"{name} is {body.get(name)!r}, not {value!r}"
    total = 0.0
    for term in body["components"].values():
        total += term
    if total != (score if score < math.inf else 0.0):
        yield f"components {body['components']} do not add up to {score}"


def _new_best_body(process: Process, _call: HookCall, body: Any) -> Iterator[str]:
    if body != {"score": process.scores[-1][1]}:
        yield f"{body}, of {process.scores}"


def _checkpoint_body(_process: Process, call: HookCall, body: Any) -> Iterator[str]:
    path = f"{call.args.output_dir}/checkpoint-{call.state.global_step}"
    if body != {"path": path}:
        yield f"{body}, not {path}"


def _cost_body(process: Process, call: HookCall, body: Any) -> Iterator[str]:
    """Ask for exact counts, and of the times for what holds on any machine."""
    counts = {name: cost["count"] for name, cost in body["hooks"].items()}
    if counts != dict(process.calls):
        yield f"hook calls are counted as {counts}, not {dict(process.calls)}"
    # What fails while this is told is not yet in it.
    failures = process.failures - Counter(_failure(call, error) for error in call.raised[:1])
    if body["failures"] != dict(failures):
        yield f"failures {body['failures']}, not {dict(failures)}"
    lived_s = time.perf_counter() - process.started_s
    for name, cost in body["hooks"].items():
        longest, in_all = cost["longest_s"], cost["total_s"]
        is_possible = 0 < longest <= in_all <= min(lived_s, longest * cost["count"] * (1 + 1e-9))
        if not is_possible:
            yield f"{name} took {in_all} s in {cost['count']} calls, the longest {longest} s"


def _notice_body(_process: Process, call: HookCall, body: Any) -> Iterator[str]:
    expected = {"what": _failure(call, call.raised[0]), "count": 1}
    if body != expected:
        yield f"{body}, not {expected}"


_BODIES = {
    "train_log": _train_log_body,
    "evaluation": _evaluation_body,
    "new_best": _new_best_body,
    "checkpoint_saved": _checkpoint_body,
    "hook_cost": _cost_body,
    "notice": _notice_body,
}


def _decided(process: Process, call: HookCall) -> Iterator[str]:
    """Ask that a run is stopped when a signal, the patience or the trend asks, and only then."""
    is_due = process.due() if _asks(process, call) else False
    if call.raised and is_due:
        is_due = None  # what the hook had still to do is lost
    is_wanted = call.event == "on_step_end" and call.is_asked_to_stop
    expected = {
        **call.flags,
        "should_training_stop": call.flags["should_training_stop"] or is_wanted or is_due,
        "should_save": call.flags["should_save"] or is_wanted,
    }
    for name, value in expected.items():
        found = getattr(call.control, name)
        if value is not None and found != value:
            yield f"{name} is {found} after {call.event} of step {call.state.global_step}"
    is_early = process.callback.stop_reason is not None
    process.is_stopped = is_early if is_due is None else process.is_stopped or is_due
    if is_early != process.is_stopped:
        yield f"stop_reason is {process.callback.stop_reason} after {call.event}"


def _asks(process: Process, call: HookCall) -> bool:
    """Tell whether the callback has to ask, at this event, if the run is over."""
    if call.event in {"on_train_begin", "on_evaluate"}:
        return True
    trend = process.plan.trend
    is_counting = trend.stop_on_divergence is not None or trend.stop_on_plateau is not None
    is_train_log = call.event == "on_log" and call.given and process.lines[-1].kind == "train"
    return bool(is_train_log) and is_counting


def _booked(process: Process, call: HookCall) -> Iterator[str]:
    """Ask that the trainer's best is set at the start, by the last choice, and not else.

    The trainer compares no evaluation that was not due (`eval_on_start`): there too, by the set
    that is scored. Of a due one, the sets after the first find the flag cleared.
    """
    expected = dict(call.books)
    is_new_score = call.event == "on_log" and call.given and is_scored(process.lines)
    if call.event == "on_train_begin" or (is_new_score and not call.flags["should_evaluate"]):
        step, value = best_of(process.scores) or (None, None)
        expected |= {"best_global_step": step, "best_metric": None if value is None else -value}
        if expected != dict(call.books):
            expected["best_model_checkpoint"] = None
    elif call.event == "on_log" and call.given and process.lines[-1].kind == "summary":
        process.choice = _last_choice(process)
        if process.choice is not None:
            step, value = process.choice
            path = f"{call.args.output_dir}/checkpoint-{step}"
            expected = dict(zip(BOOKS, (step, -value, path), strict=True))
    found = {name: getattr(call.state, name) for name in BOOKS}
    if found != expected:
        yield f"the trainer's best is {found} after {call.event}, not {expected}"
    choice = process.callback.choice
    if (None if choice is None else (choice.step, choice.value)) != process.choice:
        yield f"the choice is {choice}, not {process.choice}"


def _last_choice(process: Process) -> Scored | None:
    """Return step and score of the checkpoint that another objective than the score ends with."""
    if process.plan.objective is not Objective.REWARD:
        return None
    step = expected_choice(process.lines, process.scores, process.plan)
    return next((score for score in process.scores if score[0] == step), None)


def _failure(call: HookCall, error: BaseException) -> str:
    return f"{call.event} raised {type(error).__name__}: {error}"


def _is_same(one: Any, other: float) -> bool:
    return one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


_CHECKS = {
    "isolated": _isolated,
    "counted": _counted,
    "scored": _scored,
    "left_alone": _left_alone,
    "told": _told,
    "decided": _decided,
    "booked": _booked,
}
