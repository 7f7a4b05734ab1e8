"""Every recording of a real trainer, replayed through the callback cut out of a compiled script."""

import math
from typing import Any

import pytest

from podproof.harness.embedded import embedded
from podproof.runtime.plan import plan_to_json
from tests.harness.conftest import script_of
from tests.streams.player import Played, play, recordings

METHODS = ("sft", "dpo", "orpo")
RANKS = sorted({name.partition(".")[0] for name in recordings() if ".rank" in name})


@pytest.fixture(scope="module")
def codes() -> dict[str, tuple[Any, Any]]:
    """Return, for each method, the code of a compiled script and its plan."""
    there: dict[str, tuple[Any, Any]] = {}
    for method in METHODS:
        script = script_of(f"experiment=tiny_{method}")
        with embedded(script.text) as code:
            there[method] = (code, code.plan_from_json(plan_to_json(script.run.plan)))
    return there


class Replay:
    """One embedded callback, what it told, and how the recording ended for it."""

    def __init__(self, codes: dict[str, tuple[Any, Any]], recording: str) -> None:
        code, plan = codes[next(method for method in METHODS if recording.startswith(method))]
        self.told: list[tuple[str, int | None, dict[str, Any]]] = []
        self.code = code
        self.callback = code.PodCallback(plan.scorer, self._report, code.StopRequest())
        self.played: Played = play(recording, self.callback)

    def _report(self, kind: Any, *, body: Any, step: Any = None, epoch: Any = None) -> None:
        self.told.append((kind.value, step, self.code.strict_json(dict(body))))

    def scores(self) -> list[tuple[int | None, float]]:
        """Return step and score of every evaluation that was told of."""
        return [
            (step, self.code.number_or_none(body["score"]))
            for kind, step, body in self.told
            if kind == "evaluation"
        ]

    def metrics(self) -> list[float]:
        return [metrics["eval_checkpoint_score"] for metrics in self.played.evaluated]

    def last_attempt(self) -> list[tuple[int | None, float]]:
        """Return the scores after the last step backwards: what was given up does not count."""
        told = self.scores()
        starts = [at for at in range(1, len(told)) if (told[at][0] or 0) <= (told[at - 1][0] or 0)]
        return told[max(starts, default=0) :]


@pytest.mark.parametrize("recording", recordings())
def test_a_real_trainer_finds_a_score_at_every_evaluation_and_no_hook_fails(
    codes: dict[str, tuple[Any, Any]], recording: str
) -> None:
    replay = Replay(codes, recording)

    assert replay.callback.failures == {}
    assert {type(metric) for metric in replay.metrics()} <= {float}
    counted = {name: cost.count for name, cost in replay.callback.costs.items()}
    assert counted == dict(replay.played.hooks)


@pytest.mark.parametrize("recording", recordings())
def test_a_real_trainer_would_load_the_checkpoint_with_the_best_score(
    codes: dict[str, tuple[Any, Any]], recording: str
) -> None:
    replay = Replay(codes, recording)
    known = replay.code.replay_scores(replay.played.state.log_history, replay.callback.plan)[1]

    scored = [(score.value, score.step) for score in known if math.isfinite(score.value)]
    choosable = [(value, step) for value, step in scored if step > 0]
    best = min(choosable, default=(None, None))[1]
    assert replay.played.state.best_global_step == replay.callback.scores.best_step == best
    told = {step: value for step, value in replay.last_attempt() if math.isfinite(value)}
    assert told.items() <= {(step, value) for value, step in scored}


@pytest.mark.parametrize("recording", recordings())
def test_the_log_saved_with_a_checkpoint_tells_the_score_of_every_evaluation(
    codes: dict[str, tuple[Any, Any]], recording: str
) -> None:
    replay = Replay(codes, recording)

    new = [entry for entry in replay.played.state.log_history if "eval_checkpoint_score" in entry]
    kept = [entry["eval_checkpoint_score"] for entry in new]
    assert list(map(repr, kept)) == list(map(repr, replay.metrics()[-len(kept) or None :]))


@pytest.mark.parametrize("run", RANKS)
def test_every_rank_decides_the_same_and_only_the_first_speaks(
    codes: dict[str, tuple[Any, Any]], run: str
) -> None:
    first, second = Replay(codes, f"{run}.rank0"), Replay(codes, f"{run}.rank1")

    assert first.callback.scores == second.callback.scores
    assert first.callback.trend == second.callback.trend
    assert first.metrics() == second.metrics()
    assert first.told != []
    assert second.told == []


def test_a_run_resumed_at_the_end_of_an_epoch_is_scored_as_the_uninterrupted_one(
    codes: dict[str, tuple[Any, Any]],
) -> None:
    whole, resumed = Replay(codes, "sft"), Replay(codes, "sft_resume.part2")

    assert resumed.callback.scores == whole.callback.scores
    assert resumed.played.state.best_metric == whole.played.state.best_metric


def test_a_run_resumed_between_two_train_logs_chooses_as_the_uninterrupted_one(
    codes: dict[str, tuple[Any, Any]],
) -> None:
    # The stock trainer forgets the losses between the last log and the checkpoint.
    whole, resumed = Replay(codes, "sft"), Replay(codes, "sft_resume.part3_midepoch")

    assert resumed.callback.scores.best_step == whole.callback.scores.best_step
    assert [step for step, _ in resumed.scores()] == [6, 9, 12]


def test_a_finished_run_that_is_resumed_keeps_its_choice(
    codes: dict[str, tuple[Any, Any]],
) -> None:
    whole = Replay(codes, "sft_resume.part3_midepoch")
    resumed = Replay(codes, "sft_resume.part4_finished")

    assert resumed.callback.scores == whole.callback.scores
    assert resumed.scores() == []


def test_a_batch_that_is_made_smaller_begins_the_history_again(
    codes: dict[str, tuple[Any, Any]],
) -> None:
    replay = Replay(codes, "sft_auto_find_batch_size")

    assert [step for step, _ in replay.last_attempt()] == [3, 6, 9, 11]
    assert replay.played.hooks["on_train_begin"] == 3


def test_of_two_eval_sets_the_first_is_scored_and_both_carry_its_score(
    codes: dict[str, tuple[Any, Any]],
) -> None:
    replay = Replay(codes, "sft_two_evals")

    metrics = replay.metrics()
    assert [step for step, _ in replay.scores()] == [3, 6, 9, 12]
    assert metrics[0::2] == metrics[1::2] == [-score for _, score in replay.scores()]
    losses = [body["eval_loss"] for kind, _, body in replay.told if kind == "evaluation"]
    assert losses == [sets["eval_a_loss"] for sets in replay.played.evaluated[0::2]]


@pytest.mark.parametrize("recording", ["dpo_nan_weights", "sft_nan_weights_nofilter"])
def test_weights_that_are_nan_are_never_best_and_their_loss_of_zero_helps_nothing(
    codes: dict[str, tuple[Any, Any]], recording: str
) -> None:
    replay = Replay(codes, recording)

    usable = [step for step, score in replay.scores() if math.isfinite(score)]
    words = [body["trend"] for kind, _, body in replay.told if kind == "evaluation"]
    counts = [body["nonfinite_train_logs"] for kind, _, body in replay.told if kind == "evaluation"]
    assert replay.callback.scores.best_step == 3
    assert usable == [3]
    assert words[1:] == ["diverging"] * 3
    assert counts[-1] > 0
    assert (replay.callback.scores.last_train_loss or 0.0) > 0.0


def test_what_is_evaluated_before_the_first_step_is_scored_and_not_chosen(
    codes: dict[str, tuple[Any, Any]],
) -> None:
    replay = Replay(codes, "sft_eval_on_start")

    assert [step for step, _ in replay.scores()] == [0, 6, 9, 12]
    assert replay.callback.scores.best_step in {6, 9, 12}
