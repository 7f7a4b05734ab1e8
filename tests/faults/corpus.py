"""The planted faults and the good configs, and what the gates say of each.

One YAML file is one case:

    planted    what is wrong, in a sentence ("" in a good config)
    layer      where it was planted
    gate       the gate that must refuse it
    names      words that its message must hold, all of them
    overrides  what is typed after `podproof verify`
    files      data files by name, with their text
    experiment the text of an experiment of one's own, chosen as experiment=planted
    script     pieces of the compiled script, old to new; `rehash: false` leaves the old hash
    plan       values of the compiled plan by dotted key, edited where it stands in the script,
               which is then read back as `podproof verify --script` does; `manifest: false` leaves
               the manifest out, `resealed: false` the old hash in the head of the script
    peers      the row of the battery that other tools were asked, when it is one of its faults
    level      how much is proven (fast, or static where a static gate must refuse)
    missed     why no gate refuses it yet; such a case must stay refused by none
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from podproof.compiler.errors import BadConfig, BadScript
from podproof.compiler.ir import PodScript
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run, seal_of, write_script
from podproof.compiler.script_file import read_script
from podproof.harness.gates import GATES, clear, refused_config, refused_script
from podproof.harness.verdict import Cleared, Level, Outcome, Refused, Surroundings
from podproof.harness.warm import WarmTrainer
from podproof.runtime.errors import Problem
from podproof.runtime.plan import plan_from_json, plan_to_json

FOLDER = Path(__file__).parent
EXAMPLES = Path(__file__).parents[2]
STATIC_GATES = ("config", *(gate.gate_id for gate in GATES if gate.level is Level.STATIC))


@dataclass(frozen=True)
class Case:
    """One planted fault, or one good config."""

    name: str
    planted: str
    layer: str
    gate: str = ""
    names: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    experiment: str = ""
    script: Mapping[str, str] = field(default_factory=dict)
    rehash: bool = True
    plan: Mapping[str, Any] = field(default_factory=dict)
    manifest: bool = True
    resealed: bool = True
    peers: str = ""
    level: str = ""
    missed: str = ""


@dataclass(frozen=True)
class Judged:
    """What the gates said of a case: who refused it, with what; nobody, when it was cleared."""

    case: Case
    problems: Mapping[str, tuple[Problem, ...]]

    @property
    def is_refused(self) -> bool:
        """Tell whether any gate refused."""
        return bool(self.problems)

    @property
    def is_caught(self) -> bool:
        """Tell whether the right gate refused, and one of its problems holds every word asked."""
        return any(
            all(name in f"{item.where} {item.what} {item.way_out}" for name in self.case.names)
            for item in self.problems.get(self.case.gate, ())
        )


def cases(folder: str) -> tuple[Case, ...]:
    """Return the cases of `planted` or `good`, by name."""
    return tuple(_case(path) for path in sorted((FOLDER / folder).glob("*.yaml")))


def judge(case: Case, place: Path, warm: WarmTrainer | None = None) -> Judged:
    """Ask the gates about a case; `place` is an empty folder for its files.

    Cases of level full train in `warm`, or in a process of their own.
    """
    result = _result(case, place, warm)
    refused = (item for item in result.verdicts if item.outcome is Outcome.REFUSED)
    return Judged(case, {verdict.gate: verdict.problems for verdict in refused})


def compiled_case(case: Case, place: Path, *overrides: str) -> PodScript:
    """Return the script of a case, whose files are put into the empty folder `place`.

    Raise BadConfig for one that never becomes a script.
    """
    for name, text in case.files.items():
        (place / name).write_text(text, encoding="utf-8")
    request = Request((*case.overrides, *overrides), _config_dir(case, place))
    return compile_run(lower(read(request)))


def _case(path: Path) -> Case:
    fields: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key in ("names", "overrides"):
        fields[key] = tuple(map(str, fields.get(key, ())))
    return Case(name=path.stem, **fields)


def _result(case: Case, place: Path, warm: WarmTrainer | None) -> Cleared | Refused:
    # Nobody waits for the fast gates where a static one must refuse.
    level = case.level or ("static" if case.gate in STATIC_GATES else "")
    try:
        script = compiled_case(case, place, *((f"gates={level}",) if level else ()))
    except BadConfig as error:
        return refused_config(error)
    try:
        tampered = _replanned(script, case, place) if case.plan else _tampered(script, case)
    except BadScript as error:
        return refused_script(error)
    return clear(tampered, Surroundings((place, EXAMPLES), warm=warm))


def _config_dir(case: Case, place: Path) -> Path | None:
    if not case.experiment:
        return None
    folder = place / "mine" / "experiment"
    folder.mkdir(parents=True)
    (folder / "planted.yaml").write_text(case.experiment, encoding="utf-8")
    return folder.parent


def _replanned(script: PodScript, case: Case, place: Path) -> PodScript:
    """Edit the plan in the script's file as a hand would, and read the file back."""
    values = json.loads(plan_to_json(script.run.plan))
    for key, value in case.plan.items():
        *sections, last = key.split(".")
        section = values
        for name in sections:
            section = section[name]
        section[last] = value
    edited = plan_from_json(json.dumps(values))
    text = script.text.replace(plan_to_json(script.run.plan), plan_to_json(edited))
    if case.resealed:
        text = text.replace(seal_of(script.run.plan), seal_of(edited))
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    path, manifest = write_script(replace(script, text=text, sha256=sha256), place)
    if not case.manifest:
        manifest.unlink()
    again = read_script(path)
    return replace(again, run=replace(again.run, gates_level=script.run.gates_level))


def _tampered(script: PodScript, case: Case) -> PodScript:
    text = script.text
    for old, new in case.script.items():
        assert old == "*" or text.count(old) == 1, f"{case.name}: {old!r} is not there just once"
        text = new if old == "*" else text.replace(old, new)
    sha256 = hashlib.sha256(text.encode()).hexdigest() if case.rehash else script.sha256
    return replace(script, text=text, sha256=sha256)
