"""Scripts for the gates to judge: a sound one, and the same with one thing changed."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from podproof.compiler.ir import PodScript
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run
from podproof.harness.verdict import Surroundings
from podproof.harness.warm import WarmTrainer

ROOTS = (Path(__file__).parents[2],)
AT_HAND = Surroundings(ROOTS)

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
