"""recovery.resume: from the run's own newest checkpoint, from another's, or never."""

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.checkpoint_files import CONFIG, checkpoint, gone, sealed
from tests.runtime.pod_process import Fault, PodFolder, plan_for

from podproof.runtime.checkpoints import list_checkpoints
from podproof.runtime.errors import NoUsableCheckpoint
from podproof.runtime.events import EventKind
from podproof.runtime.plan import Plan, RecoveryPlan, Resume, plan_from_json, plan_to_json
from podproof.runtime.resuming import checkpoint_to_resume

Undisturbed = Callable[[Plan], dict[str, Any]]


def plan_that_resumes(resume: Resume | str, **arguments: Any) -> Plan:
    return replace(plan_for(**arguments), recovery=RecoveryPlan(resume=resume))


def test_auto_takes_the_newest(tmp_path: Path) -> None:
    paths = [sealed(tmp_path, step) for step in (4, 8)]

    assert checkpoint_to_resume(plan_that_resumes(Resume.AUTO), tmp_path, print) == paths[1]


def test_never_puts_every_checkpoint_aside(tmp_path: Path) -> None:
    sealed(tmp_path, 4)
    notices: list[str] = []

    found = checkpoint_to_resume(plan_that_resumes(Resume.NEVER), tmp_path, notices.append)

    assert found is None
    assert notices == ["checkpoint-4 set aside: recovery.resume is never"]
    assert list_checkpoints(tmp_path) == ()


def test_a_path_is_copied_in_as_a_checkpoint_of_this_run(tmp_path: Path) -> None:
    source = sealed(tmp_path / "other", 40)
    state = {
        "global_step": 40,
        "eval_steps": 500,
        "log_history": [{"step": 40, "eval_loss": 1.0}],
        "best_global_step": 40,
        "stateful_callbacks": {"TrainerControl": {"args": {}}},
    }
    (source / "trainer_state.json").write_text(json.dumps(state))
    shutil.rmtree(source.parent / "quarantine", ignore_errors=True)
    (source / "podproof.json").unlink()
    (tmp_path / "output").mkdir()

    found = checkpoint_to_resume(plan_that_resumes(str(source)), tmp_path / "output", print)

    adopted = json.loads((tmp_path / "output/checkpoint-40/trainer_state.json").read_text())
    assert found == tmp_path / "output" / "checkpoint-40"
    assert (adopted["log_history"], adopted["best_global_step"]) == ([], None)
    assert adopted["eval_steps"] == 4
    assert adopted["stateful_callbacks"] == {
        "TrainerControl": {"args": {}},
        "podproof": {"config_sha256": CONFIG},
    }
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["checkpoint-40"]


def test_a_restart_goes_on_from_the_run_s_own_checkpoint_not_from_the_path(tmp_path: Path) -> None:
    source = sealed(tmp_path / "other", 40)
    own = sealed(tmp_path / "output", 44)

    found = checkpoint_to_resume(plan_that_resumes(str(source)), tmp_path / "output", print)

    assert found == own


@pytest.mark.parametrize(
    ("break_it", "what"),
    [(shutil.rmtree, "there is no such folder"), (gone("optimizer.pt"), "optimizer.pt is missing")],
)
def test_a_path_that_cannot_be_resumed_from_is_refused(
    tmp_path: Path, break_it: Callable[[Path], object], what: str
) -> None:
    source = checkpoint(tmp_path / "other", 40)
    break_it(source)

    with pytest.raises(NoUsableCheckpoint, match=what):
        checkpoint_to_resume(plan_that_resumes(str(source)), tmp_path, print)


@pytest.mark.parametrize("resume", [Resume.AUTO, Resume.NEVER, "/workspace/run-1/checkpoint-8"])
def test_each_way_to_resume_travels_in_the_plan(resume: Resume | str) -> None:
    plan = plan_from_json(plan_to_json(plan_that_resumes(resume)))

    assert plan.recovery.resume == resume


# Real trainings.


def test_a_run_that_never_resumes_begins_again(tmp_path: Path, undisturbed: Undisturbed) -> None:
    pod = PodFolder(tmp_path / "run", plan_that_resumes(Resume.NEVER))
    pod.run(Fault(at=6, sends=signal.SIGTERM))

    code = pod.run()

    assert code == 0
    assert pod.events(EventKind.RESUMED) == []
    assert pod.result() == undisturbed(plan_for())


def test_a_run_can_begin_with_the_checkpoint_of_another(tmp_path: Path) -> None:
    first = PodFolder(tmp_path / "first")
    first.run(Fault(at=6, sends=signal.SIGTERM))
    source = first.output / "checkpoint-6"
    other = replace(plan_that_resumes(str(source), eval_steps=3, save_steps=3), config_sha256="e")
    second = PodFolder(tmp_path / "second", other)

    codes = [second.run(Fault(at=5, sends=signal.SIGKILL)), second.run()]

    assert codes == [-9, 0]
    assert [event.body["path"][-12:] for event in second.events(EventKind.RESUMED)] == [
        "checkpoint-6",
        "checkpoint-9",
    ]
    assert [step for step, _ in second.scores()] == [9, 12]
    assert second.ending()["final_step"] == 12
