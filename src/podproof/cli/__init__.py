"""The command line: parse, one call, print, exit code."""

import argparse
import gc
import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

from podproof.cli.terminal import EXIT_INTERRUPTED, err, print_json, show_error
from podproof.compiler.places import problem_to_dict
from podproof.runtime.errors import PodproofError
from podproof.runtime.plan import Objective

# argparse keeps the type of its subparsers to itself.
_Verbs: TypeAlias = Any

_DESCRIPTION = "Compile a Hydra config into one proven pod script, and launch it exactly once."

_EPILOG = """\
examples:
  podproof compile experiment=tiny_sft
  podproof compile experiment=tiny_dpo trainer.learning_rate=1e-4 method.beta=0.2 --config-dir mine
  podproof verify experiment=tiny_orpo --json
  podproof verify --all mine/experiment --level static --html report.html
  podproof launch experiment=tiny_sft
  podproof launch -m experiment=tiny_sft trainer.learning_rate=1e-3,3e-3
  podproof show tiny-sft
  podproof rescore trainer_state.json
  podproof diff experiment=tiny_sft "experiment=tiny_sft trainer.learning_rate=1e-4"
  podproof approve experiment=tiny_sft --why "the first baseline"
  podproof replay recorded.jsonl.gz experiment=tiny_sft

exit codes: 0 done; 1 refused or failed; 2 the config or the command is wrong;
4 the pod ended and reported to nobody here; 130 interrupted.
PODPROOF_HOME is where runs, volumes and the store are kept.
"""

# A script's syntax tree is a hundred thousand objects and no garbage: looking for some among them
# at Python's usual 700 took a third of the static gates' time.
_OBJECTS_TO_COLLECT_AT = 100_000

_OVERRIDE_HELP = "Hydra overrides: experiment=tiny_sft trainer.learning_rate=1e-4"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; no traceback for what a user can mend."""
    options = _parse(argv)
    _prepare()
    try:
        return _run_verb(options)
    except KeyboardInterrupt:
        err().print("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; point stdout elsewhere so that exiting stays quiet.
        sys.stdout = None
        return 1
    except (PodproofError, OSError) as error:
        if options.debug:
            raise
        return _failed(error, as_json=getattr(options, "json", False))


def _prepare() -> None:
    """Make room for syntax trees, and let every terminal take what is printed."""
    gc.set_threshold(_OBJECTS_TO_COLLECT_AT)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _failed(error: PodproofError | OSError, *, as_json: bool) -> int:
    """Show what failed and return the exit code."""
    if isinstance(error, OSError):
        # A full disk under our output, a current folder that is gone: nothing of ours to mend.
        print(f"podproof: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if as_json:
        problems = [problem_to_dict(item) for item in error.problems]
        print_json({"error": error.error_id, "problems": problems})
    else:
        show_error(error)
    return error.exit_code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse verbs and options; overrides may stand before or after options, as with Hydra."""
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    unknown = [item for item in rest if item.startswith("-")]
    if unknown or (rest and not hasattr(options, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="podproof",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(dest="verb_name", required=True, metavar="VERB")
    _add_config_verbs(verbs)
    _add_run_verbs(verbs)
    _add_rescore_verb(verbs)
    _add_change_verbs(verbs)
    _add_replay_verb(verbs)
    return parser


def _add_config_verbs(verbs: _Verbs) -> None:
    compile_verb = _verb(verbs, "compile", "write pod_script.py and manifest.json")
    compile_verb.add_argument("-o", "--output", metavar="DIR", help="write here (outputs/NAME)")
    verify_verb = _verb(verbs, "verify", "ask every gate; exit 0 cleared, 1 refused")
    verify_verb.add_argument("-o", "--output", metavar="DIR", help="write script and verdicts here")
    _add_verify_options(verify_verb)
    launch_verb = _verb(verbs, "launch", "verify, then run it on a pod and follow it to its end")
    launch_verb.add_argument("-m", "--multirun", action="store_true", help="Hydra's own sweep")
    launch_verb.add_argument("--run-id", metavar="ID", help="launch, or go on with, this very run")
    for verb in (compile_verb, verify_verb, launch_verb):
        verb.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=_OVERRIDE_HELP)
        verb.add_argument("--config-dir", metavar="DIR", help="a folder of your own configs")


def _add_verify_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--script", metavar="FILE", help="verify a pod_script.py as it stands")
    what = "verify every experiment of a folder: files, or a folder of configs with experiment/"
    verb.add_argument("--all", metavar="DIR", help=what)
    what = "how much is proven (the config's own gates.level)"
    verb.add_argument("--level", choices=("static", "fast", "full"), help=what)
    what = "how many experiments at once (one for each core)"
    verb.add_argument("--jobs", type=int, metavar="N", help=what)
    verb.add_argument("--junit", metavar="FILE", help="write the verdicts as JUnit XML too")
    verb.add_argument("--sarif", metavar="FILE", help="write the problems as SARIF 2.1.0 too")
    verb.add_argument("--html", metavar="FILE", help="write a page for people too")


def _add_run_verbs(verbs: _Verbs) -> None:
    _verb(verbs, "runs", "list every run, newest first")
    show_verb = _verb(verbs, "show", "status, scores, chosen checkpoint, where the weights are")
    logs_verb = _verb(verbs, "logs", "what the script printed", has_json=False)
    logs_verb.add_argument("-f", "--follow", action="store_true", help="until the pod is gone")
    stop_verb = _verb(verbs, "stop", "end the run's pod")
    for verb in (show_verb, logs_verb, stop_verb):
        help_text = "its id, or how it begins: then the newest such run (the newest of all)"
        verb.add_argument("run", nargs="?", metavar="RUN", help=help_text)


def _add_rescore_verb(verbs: _Verbs) -> None:
    verb = _verb(verbs, "rescore", "which checkpoint each scorer would have chosen, and why")
    what = "a trainer_state.json, recorded stream, events.jsonl, CSV, folder, or the id of a run"
    verb.add_argument("paths", nargs="+", metavar="PATH", help=what)
    verb.add_argument("--scorer", action="append", metavar="NAME", help="one of those to ask (all)")
    goals = [objective.value for objective in Objective]
    what = "what the choice shall be best at, as scorer.objective (loss)"
    verb.add_argument("--objective", choices=goals, default=goals[0], help=what)
    what = "a file with a formula of your own to ask too"
    verb.add_argument("--scorer-file", action="append", metavar="FILE", help=what)
    verb.add_argument(
        "--held-out", metavar="METRIC", help="a metric no scorer saw: adds the regret"
    )
    verb.add_argument(
        "--held-out-higher", action="store_true", help="higher is better there (lower is)"
    )
    verb.add_argument("--eval-loss", metavar="METRIC", help="what to take as eval loss (eval_loss)")
    verb.add_argument("--train-loss", metavar="METRIC", help="what to take as train loss (loss)")
    verb.add_argument("--plot", metavar="FILE", help="draw the curves into FILE.svg, .png or .pdf")


def _add_change_verbs(verbs: _Verbs) -> None:
    diff_verb = _verb(
        verbs, "diff", "every change between two scripts or configs; 1 needs approval"
    )
    what = "a script, a folder with one, an experiment's YAML, 'overrides', or REVISION: before it"
    diff_verb.add_argument("before", metavar="A", help=what)
    diff_verb.add_argument("after", metavar="B", help="the same, to compare with")
    what = "print markdown, for a pull request"
    diff_verb.add_argument("--markdown", action="store_true", help=what)
    approve_verb = _verb(verbs, "approve", "make this script the one its experiment may be")
    approve_verb.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=_OVERRIDE_HELP)
    approve_verb.add_argument("--script", metavar="FILE", help="approve a script that was compiled")
    approve_verb.add_argument("--why", metavar="TEXT", help="the reason, kept with the approval")
    approve_verb.add_argument("--list", action="store_true", help="list what was approved")
    for verb in (diff_verb, approve_verb):
        verb.add_argument("--config-dir", metavar="DIR", help="a folder of your own configs")


def _add_replay_verb(verbs: _Verbs) -> None:
    verb = _verb(verbs, "replay", "play a stream of events to a callback; exit 1 if it breaks")
    what = "a stream that verify saved, or a trainer's recorded events (.jsonl, .jsonl.gz)"
    verb.add_argument("file", metavar="FILE", help=what)
    verb.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=_OVERRIDE_HELP)
    verb.add_argument("--script", metavar="FILE", help="the callback of this pod_script.py")
    verb.add_argument("--config-dir", metavar="DIR", help="a folder of your own configs")


def _verb(verbs: _Verbs, name: str, what: str, *, has_json: bool = True) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=what)
    if has_json:
        verb.add_argument("--json", action="store_true", help="print JSON")
    return verb


def _run_verb(options: argparse.Namespace) -> int:
    """Call the verb; its module is imported only now, so that compile loads no launcher."""
    module_name, function_name = _VERBS[options.verb_name]
    module = importlib.import_module(f"podproof.cli.{module_name}")
    return int(getattr(module, function_name)(options))


_VERBS = {
    "compile": ("scripts", "compile_config"),
    "verify": ("verifying", "verify_any"),
    "launch": ("launching", "launch_config"),
    "runs": ("records", "list_all"),
    "show": ("records", "show_one"),
    "logs": ("records", "print_logs"),
    "stop": ("records", "stop_run"),
    "rescore": ("rescoring", "rescore_runs"),
    "diff": ("diffing", "diff_sides"),
    "approve": ("approving", "approve_script"),
    "replay": ("replaying", "replay_stream"),
}
