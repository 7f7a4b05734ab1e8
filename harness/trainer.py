"""The trainer gate: the real trainer of the pinned library is built, and must not refuse.

It is built by the script's own code from the plan's own arguments, around a small model of the
same architecture, with its optimizer and its learning-rate schedule. No step is trained.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from podproof.compiler.ir import PodScript
from podproof.harness.explain import explained, lacking_targets
from podproof.harness.shrink import plan_to_build
from podproof.harness.small_job import SmallJob, small_job
from podproof.harness.verdict import Surroundings, warmed
from podproof.harness.warm import Answer, Job, NotWarm, Order
from podproof.runtime.errors import Problem
from podproof.runtime.plan import Plan


def trainer_answer(
    script: PodScript, surroundings: Surroundings
) -> tuple[str, tuple[Problem, ...]]:
    """Return what was built, and a problem for each thing that the libraries refused or ignored."""
    try:
        with warmed(surroundings) as warm:
            warm.start()
            with small_job(script, surroundings, plan_to_build) as job:
                answer = warm.ask(Order(Job.BUILD, job.folder))
                problems = tuple(_problems(answer, job.plan))
                return _summary(answer, job, script), problems
    except NotWarm as error:
        return "no trainer was built", (error.problem,)


def unanswered(answer: Answer) -> Iterator[Problem]:
    """Yield a problem when a job hung, left processes behind, or died before it could say why."""
    last = "\n".join(answer.said[-12:]) or "it printed nothing"
    if answer.is_late:
        what = f"did not end in time; the innermost call was\n{_where_it_stood(answer)}"
        yield Problem("pod_script.py", what, "find what it waits for")
    elif answer.code < 0:
        yield Problem("pod_script.py", f"was killed by signal {-answer.code}:\n{last}")
    if answer.left_running:
        way_out = "end every process before the script ends"
        yield Problem("pod_script.py", "left processes running, which have been ended", way_out)


def _problems(answer: Answer, plan: Plan) -> Iterator[Problem]:
    yield from unanswered(answer)
    result = answer.result
    if "error" in result:
        yield from _refused(result["error"], plan)
    elif answer.code > 0:
        yield Problem("pod_script.py", "ended early:\n" + "\n".join(answer.said[-12:]))
    yield from lacking_targets(result.get("targets_lacking", ()), result.get("linear", ()))
    for name in result.get("modules_lacking", ()):
        what = f"the model has no module {name!r}, and PEFT passes over it without a word"
        yield Problem("adapter.modules_to_save", what, "name a module of the model")
    if result.get("trained_weights") == 0:
        yield Problem("adapter", "no weight of the model would be trained")


def _refused(error: Mapping[str, Any], plan: Plan) -> tuple[Problem, ...]:
    if error["problems"]:
        return tuple(Problem(*item) for item in error["problems"])
    return explained(error["type"], error["message"], plan, error["linear"])


def _summary(answer: Answer, job: SmallJob, script: PodScript) -> str:
    result = answer.result
    notes = "; ".join([*result.get("notes", ()), *job.notes])
    if "trainer" not in result:
        return f"not built: {notes}"
    trl = next(item for item in script.run.requirements if item.startswith("trl=="))
    weights = f"{result['trained_weights']:,} of {result['weights']:,} weights trained"
    return f"{result['trainer']} ({trl}): {weights}; {notes}"


def _where_it_stood(answer: Answer) -> str:
    lines = [line.strip() for line in answer.said if line.startswith("  File ")]
    return "\n".join(lines[:3]) or "unknown"
