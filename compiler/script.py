"""The pod script: cut from runtime/, written to disk with its manifest, and read back."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from podproof.compiler.bundle import bundle
from podproof.compiler.errors import BadScript
from podproof.compiler.ir import PodScript, PodSpec, Run
from podproof.compiler.parts import parts_of
from podproof.compiler.pins import REQUIRES_PYTHON
from podproof.runtime.errors import Problem
from podproof.runtime.plan import Plan, plan_to_json

SCRIPT_NAME = "pod_script.py"
MANIFEST_NAME = "manifest.json"
ENTRY = "entry"

# The module whose place the text of `scorer.file` takes.
OWN_SCORER = "own_scorer"

# The boot code travels beside the script, and the package file has no content to bundle.
_NOT_BUNDLED = {"boot", "__init__"}


def compile_run(run: Run) -> PodScript:
    """Return the pod script of a run: the same run gives the same bytes on any machine."""
    made = bundle(
        sources_with(run.own_scorer),
        ENTRY,
        preamble=_preamble(run),
        constants={"PLAN_JSON": plan_to_json(run.plan)},
        parts=parts_of(run.plan),
    )
    digest = hashlib.sha256(made.text.encode("utf-8")).hexdigest()
    return PodScript(text=made.text, sha256=digest, run=run, modules=made.modules)


def sources_with(own_scorer: str | None) -> Mapping[str, str]:
    """Return the source text of every module, the user's scorer in its place if there is one."""
    sources = runtime_sources()
    return sources if own_scorer is None else {**sources, OWN_SCORER: own_scorer}


@cache
def runtime_sources() -> Mapping[str, str]:
    """Return the source text of every module that can ride in a script, by name."""
    files = resources.files("podproof.runtime").iterdir()
    names = sorted(file.name for file in files if file.name.endswith(".py"))
    folder = resources.files("podproof.runtime")
    return {
        name.removesuffix(".py"): (folder / name).read_text(encoding="utf-8")
        for name in names
        if name.removesuffix(".py") not in _NOT_BUNDLED
    }


def manifest(script: PodScript, verdicts: tuple[Mapping[str, Any], ...] = ()) -> dict[str, Any]:
    """Return what stands beside the script: hashes, pins, sizes, module map, gate verdicts."""
    return {
        "name": script.run.plan.name,
        "method": script.run.plan.method.value,
        "script": SCRIPT_NAME,
        "sha256": script.sha256,
        "config_sha256": script.run.plan.config_sha256,
        "bytes": len(script.text.encode("utf-8")),
        "lines": script.text.count("\n"),
        "requires_python": REQUIRES_PYTHON,
        "requirements": list(script.run.requirements),
        "pod": _pod(script.run.pod),
        "gates": {"level": script.run.gates_level, "skip": dict(script.run.gates_skip)},
        "modules": [
            {"name": name, "first_line": first, "last_line": last}
            for name, first, last in script.modules
        ],
        "verdicts": [dict(verdict) for verdict in verdicts],
    }


def _pod(spec: PodSpec) -> dict[str, Any]:
    """Return the pod as JSON values; of the environment only names, and digests of the values."""
    plain = json.loads(json.dumps(asdict(spec)))
    return {
        **plain,
        "env": {key: hashlib.sha256(value.encode()).hexdigest()[:12] for key, value in spec.env},
        "secrets": dict(spec.secrets),
    }


def write_script(
    script: PodScript, folder: Path, verdicts: tuple[Mapping[str, Any], ...] = ()
) -> tuple[Path, Path]:
    """Write pod_script.py and manifest.json into `folder`, each whole or not at all.

    Raise BadScript when the folder cannot be written.
    """
    text = json.dumps(manifest(script, verdicts), indent=2, sort_keys=True) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / SCRIPT_NAME, script.text)
        write_whole(folder / MANIFEST_NAME, text)
    except OSError as error:
        way_out = "free some space or choose another folder with --output"
        raise BadScript(Problem(str(folder), f"cannot be written: {error}", way_out)) from error
    return folder / SCRIPT_NAME, folder / MANIFEST_NAME


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all; raise OSError."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def seal_of(plan: Plan) -> str:
    """Return the line by which a script tells whether its plan is the one it was compiled with."""
    return f"# plan sha256: {hashlib.sha256(plan_to_json(plan).encode('ascii')).hexdigest()}"


def _preamble(run: Run) -> str:
    """Return the PEP 723 block that makes `uv run pod_script.py` work, and where this came from."""
    pins = [f'#   "{requirement}",' for requirement in run.requirements]
    return "\n".join(
        [
            "# /// script",
            f'# requires-python = "{REQUIRES_PYTHON}"',
            "# dependencies = [",
            *pins,
            "# ]",
            "# ///",
            "#",
            f"# podproof pod script: {run.plan.name} ({run.plan.method.value})",
            f"# config sha256: {run.plan.config_sha256}",
            seal_of(run.plan),
            "# Compiled from a config; do not edit, compile again.",
        ]
    )
