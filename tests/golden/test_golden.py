"""Goldens: what each shipped experiment becomes, word for word; `make bless` accepts a change.

A golden holds all that a config decides. The rest of a script is the program, the same for every
run, so of that only the frame is kept: header, docstring, imports and the order of the modules.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

import pytest

from podproof.compiler.ir import PodScript
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run, manifest
from podproof.runtime.plan import plan_to_json
from tests.blessing import golden

FOLDER = Path(__file__).parent / "runs"
EXPERIMENTS = sorted(
    path.stem for path in (Path(__file__).parents[2] / "conf" / "experiment").glob("*.yaml")
)


@cache
def script_of(experiment: str) -> PodScript:
    overrides = (f"experiment={experiment}", "pod.network_volume=abc")
    return compile_run(lower(read(Request(overrides))))


def run_as_text(script: PodScript) -> str:
    """Return all that the config decided: the plan, the pod, the requirements and the gates."""
    parts = {
        "plan": json.loads(plan_to_json(script.run.plan)),
        "pod": asdict(script.run.pod),
        "requirements": script.run.requirements,
        "gates": {"level": script.run.gates_level, "skip": script.run.gates_skip},
    }
    return json.dumps(parts, indent=2, sort_keys=True) + "\n"


def frame_as_text(script: PodScript) -> str:
    """Return the script up to its first module, and the names of the modules in their order."""
    first_line = script.modules[0][1]
    head = script.text.splitlines()[: first_line - 1]
    order = [f"# ... {name}" for name, _, _ in script.modules]
    frame = "\n".join([*head, *order]) + "\n"
    # What is hashed stands in the golden of the run; here the hashes would only change along.
    return re.sub(r"(?m)^(# \w+ sha256:) \w+$", r"\1 ...", frame)


def facts_as_text(scripts: Mapping[str, PodScript]) -> str:
    """Return what the manifests say beyond the run: Python, and which modules ride along."""
    facts = {
        name: {
            "requires_python": manifest(script)["requires_python"],
            "modules": sorted(module for module, _, _ in script.modules),
        }
        for name, script in scripts.items()
    }
    return json.dumps(facts, indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_experiment_becomes_its_golden_run(experiment: str) -> None:
    text = run_as_text(script_of(experiment))

    assert text == golden(FOLDER / f"{experiment}.json", text)


def test_a_script_has_the_golden_frame() -> None:
    text = frame_as_text(script_of("tiny_sft"))

    assert text == golden(FOLDER / "script_frame.txt", text)


def test_the_manifests_have_their_golden_facts() -> None:
    text = facts_as_text({name: script_of(name) for name in EXPERIMENTS})

    assert text == golden(Path(__file__).parent / "manifests.json", text)


def test_no_golden_is_left_over_from_an_experiment_that_is_gone() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == EXPERIMENTS
