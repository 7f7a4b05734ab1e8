"""Scripts for the gates to judge: a sound one, and the same with one thing changed."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from podproof.compiler.ir import PodScript
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run
from podproof.harness.real_training import OUTPUT_FOLDER
from podproof.harness.shrink import plan_to_train
from podproof.harness.small_job import small_job
from podproof.harness.verdict import Surroundings
from podproof.harness.warm import Job, Order, WarmTrainer
from podproof.runtime.plan import Plan

ROOTS = (Path(__file__).parents[2],)
AT_HAND = Surroundings(ROOTS)


@dataclass(frozen=True)
class SoundOutput:
    """What a sound training left in `place`, by which plan, and a copy of it that is kept."""

    place: Path
    plan: Plan
    kept: Path


Tamper = Callable[[str, str], PodScript]


def script_of(*overrides: str) -> PodScript:
    return compile_run(lower(read(Request(overrides))))


@pytest.fixture(scope="session")
def sound() -> PodScript:
    return script_of("experiment=tiny_sft")


@pytest.fixture
def tamper(sound: PodScript) -> Tamper:
    """Return the sound script with one piece of its text replaced, its hash set right again."""

    def replaced(old: str, new: str) -> PodScript:
        assert sound.text.count(old) == 1, f"{old!r} stands {sound.text.count(old)} times"
        text = sound.text.replace(old, new)
        return replace(sound, text=text, sha256=hashlib.sha256(text.encode()).hexdigest())

    return replaced


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmTrainer]:
    """One warm process for all tests that train; it starts with the first of them."""
    with WarmTrainer() as trainer:
        yield trainer


@pytest.fixture(scope="session")
def warm_at_hand(warm: WarmTrainer) -> Surroundings:
    return replace(AT_HAND, warm=warm)


@pytest.fixture(scope="session")
def sound_output(warm: WarmTrainer, tmp_path_factory: pytest.TempPathFactory) -> SoundOutput:
    """Train once; `place` is gone then, and may be filled again."""
    kept = tmp_path_factory.mktemp("trained") / "kept"
    with small_job(script_of("experiment=tiny_sft"), AT_HAND, plan_to_train) as job:
        assert warm.ask(Order(Job.TRAIN, job.folder)).code == 0
        shutil.copytree(job.folder / OUTPUT_FOLDER, kept)
        return SoundOutput(job.folder / OUTPUT_FOLDER, job.plan, kept)
