"""The smoke gate: the unmodified script trains a small model here, and keeps every promise.

It trains a few steps, evaluates, saves, scores, ends with the checkpoint of the best score, and
delivers it. Then another process, which knows nothing of the training, loads what was delivered.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from podproof.compiler.ir import PodScript
from podproof.harness.explain import explained
from podproof.harness.promises import broken_promises
from podproof.harness.real_training import OUTPUT_FOLDER
from podproof.harness.shrink import plan_to_train
from podproof.harness.small_job import SmallJob, small_job
from podproof.harness.trained import Trained, read_trained
from podproof.harness.trainer import unanswered
from podproof.harness.verdict import Surroundings, warmed
from podproof.harness.warm import Answer, Job, NotWarm, Order, WarmTrainer
from podproof.runtime.errors import Problem
from podproof.runtime.events import Event, EventKind
from podproof.runtime.plan import Plan, PublishTo


def smoke_answer(script: PodScript, surroundings: Surroundings) -> tuple[str, tuple[Problem, ...]]:
    """Return what was trained, and a problem for each promise that the script did not keep."""
    try:
        with warmed(surroundings) as warm:
            warm.start()
            with small_job(script, surroundings, plan_to_train) as job:
                return _trained_and_loaded(warm, job)
    except NotWarm as error:
        return "nothing was trained", (error.problem,)


def _trained_and_loaded(warm: WarmTrainer, job: SmallJob) -> tuple[str, tuple[Problem, ...]]:
    answer = warm.ask(Order(Job.TRAIN, job.folder))
    notes = "; ".join([*answer.result.get("notes", ()), *job.notes])
    trained = read_trained(job.folder / OUTPUT_FOLDER, job.plan)
    problems = (*unanswered(answer), *trained.problems)
    if answer.code != 0 or problems:
        return f"not trained to its end: {notes}", (*problems, *_ending(answer, trained))
    problems = tuple(broken_promises(trained))
    if job.plan.publish.to is not PublishTo.NONE and not problems:
        problems = tuple(_loaded(warm.ask(Order(Job.LOAD, job.folder)), job.plan))
    return f"{_story(trained)}; {notes}", problems


def _ending(answer: Answer, trained: Trained) -> Iterator[Problem]:
    """Say why a training that ended with an exit code ended so."""
    last = trained.events[-1] if trained.events else None
    if answer.code <= 0 or answer.is_late:
        return
    if last is None or last.kind is not EventKind.FAILED:
        what = f"exit code {answer.code}, and no event says why:\n"
        yield Problem("pod_script.py", what + "\n".join(answer.said[-12:]))
        return
    yield from _failure(last, answer, trained.plan)


def _failure(failed: Event, answer: Answer, plan: Plan) -> Iterator[Problem]:
    error, colon, message = str(failed.body.get("error", "")).partition(": ")
    told = [str(item) for item in failed.body.get("problems", ())]
    if not colon:
        # One of our own errors: each of its problems already says where, what and the way out.
        for text in told:
            where, _, rest = text.partition(": ")
            what, _, way_out = rest.partition("\n  way out: ")
            yield Problem(where, what or f"exit code {answer.code}", way_out)
        return
    at = next((line.strip() for line in reversed(told) if "pod_script.py" in line), "")
    for problem in explained(error, message, plan):
        what = f"{problem.what} ({at})" if at else problem.what
        yield Problem(problem.where, what, problem.way_out)


def _loaded(answer: Answer, plan: Plan) -> Iterator[Problem]:
    yield from unanswered(answer)
    result = answer.result
    if answer.code > 0:
        last = answer.said[-1] if answer.said else "it printed nothing"
        yield Problem(plan.publish.dir, f"what was delivered does not load by itself: {last}")
    elif "is_finite" not in result and not (answer.is_late or answer.code < 0):
        yield Problem(plan.publish.dir, "ended well without loading what was delivered")
    if result.get("is_finite") is False:
        yield Problem(plan.publish.dir, "the delivered weights compute numbers that are not finite")
    for step in result.get("not_delivered", ()):
        yield Problem(
            "smoke.choice", f"were step {step} the best, other weights would be delivered"
        )
    # For the loss of the assistant's turns alone TRL may put its own form of the template there.
    is_exact = not plan.arguments.get("assistant_only_loss")
    wanted, there = result.get("wanted_template"), result.get("template")
    if (is_exact and wanted != there) or (wanted and not there):
        yield Problem("model.chat_template", "what was delivered has another chat template")


def _story(trained: Trained) -> str:
    chosen = f"step {trained.chosen_step} of {', '.join(map(str, trained.saved_steps))}"
    scores = [score for score in trained.scores.values() if math.isfinite(score)]
    best = f", score {min(scores):.3f}" if scores else ""
    done = f"{trained.final_step} steps, ended with {chosen}{best}"
    if trained.delivered is None:
        return done
    return f"{done}, delivered {len(list(Path(trained.delivered).iterdir()))} files, loaded anew"
