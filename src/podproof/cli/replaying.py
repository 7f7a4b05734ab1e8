"""`podproof replay`: a stream of events, drawn or recorded, through the callback of a script."""

import argparse
import ast
import hashlib
from pathlib import Path

from podproof.cli.scripts import compiled
from podproof.cli.terminal import EXIT_REFUSED, existing_folder, print_json, progress, show
from podproof.compiler.errors import BadConfig, BadScript
from podproof.compiler.read import Request
from podproof.harness.embedded import embedded
from podproof.harness.replay import is_clean, read_stream, replay, seen_table, seen_to_dicts
from podproof.runtime.errors import Problem
from podproof.runtime.plan import MethodName, Plan, plan_from_json

_PLAN_NAME = "PLAN_JSON"


def replay_stream(options: argparse.Namespace) -> int:
    """Play the file's stream and print what came of each event; return 0 when nothing broke."""
    stream = read_stream(Path(options.file))
    text, plan = _script(options, stream.method)
    with progress(f"playing {options.file}"), embedded(text) as code:
        seen = replay(stream, code, plan.scorer)
    if options.json:
        document = {
            "file": options.file,
            "name": plan.name,
            "script_sha256": hashlib.sha256(text.encode("utf-8")).hexdigest(),
            "is_clean": is_clean(seen),
            "events": seen_to_dicts(seen),
        }
        print_json(document)
    else:
        show(seen_table(seen))
    return 0 if is_clean(seen) else EXIT_REFUSED


def _script(options: argparse.Namespace, method: MethodName) -> tuple[str, Plan]:
    """Return text and plan of the script of --script, or of the overrides.

    Without an experiment among them it is the shipped one of the stream's method.
    """
    if options.script is not None:
        if options.overrides or options.config_dir:
            what = "a script has its config in it, and no override can change it"
            raise BadConfig(Problem("--script", what, "give --script or overrides, not both"))
        return _script_of_file(Path(options.script))
    overrides = tuple(options.overrides)
    if not any(override.startswith("experiment=") for override in overrides):
        overrides = (f"experiment=tiny_{method.value}", *overrides)
    folder = existing_folder(options.config_dir, "--config-dir")
    script = compiled(Request(overrides, folder))
    return script.text, script.run.plan


def _script_of_file(path: Path) -> tuple[str, Plan]:
    """Read a pod script and the plan in it, without running it; raise BadScript or BadPlan."""
    way_out = "give a pod_script.py that podproof compile wrote"
    try:
        text = path.read_text(encoding="utf-8")
        body = ast.parse(text).body
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise BadScript(Problem(str(path), f"cannot be read: {error}", way_out)) from error
    for statement in body:
        if _assigns_the_plan(statement):
            return text, plan_from_json(ast.literal_eval(statement.value))  # type: ignore[attr-defined]  # it is an assignment
    raise BadScript(Problem(str(path), f"is no pod script: it has no {_PLAN_NAME}", way_out))


def _assigns_the_plan(statement: ast.stmt) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    is_named = any(isinstance(name, ast.Name) and name.id == _PLAN_NAME for name in targets)
    value = getattr(statement, "value", None)
    return is_named and isinstance(value, ast.Constant) and isinstance(value.value, str)
