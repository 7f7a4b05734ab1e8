"""The command line: parse, one call, print, exit code."""

import argparse
import sys
from collections.abc import Sequence

from podproof.cli.scripts import compile_config, verify_config
from podproof.cli.terminal import EXIT_INTERRUPTED, err, print_json, show_error
from podproof.runtime.errors import PodproofError

_DESCRIPTION = "Compile a Hydra config into one proven pod script, and launch it exactly once."

_EPILOG = """\
examples:
  podproof compile experiment=tiny_sft
  podproof compile experiment=tiny_dpo trainer.learning_rate=1e-4 method.beta=0.2 --config-dir mine
  podproof verify experiment=tiny_orpo --json
  podproof launch experiment=tiny_sft
  podproof launch -m experiment=tiny_sft trainer.learning_rate=1e-3,3e-3
  podproof show tiny-sft

exit codes: 0 done; 1 refused or failed; 2 the config or the command is wrong; 130 interrupted.
PODPROOF_HOME is where runs, volumes and the store are kept.
"""

_OVERRIDE_HELP = "Hydra overrides: experiment=tiny_sft trainer.learning_rate=1e-4"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; no traceback for what a user can mend."""
    options = _parse(argv)
    try:
        return int(options.verb(options))
    except KeyboardInterrupt:
        err().print("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; point stdout elsewhere so that exiting stays quiet.
        sys.stdout = None
        return 1
    except PodproofError as error:
        if options.debug:
            raise
        if getattr(options, "json", False):
            print_json(
                {
                    "error": error.error_id,
                    "problems": [
                        {"where": item.where, "what": item.what, "way_out": item.way_out}
                        for item in error.problems
                    ],
                }
            )
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
    _add_script_verbs(verbs)
    return parser


def _add_script_verbs(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    compile_verb = verbs.add_parser("compile", help="write pod_script.py and manifest.json")
    compile_verb.set_defaults(verb=compile_config)
    compile_verb.add_argument("-o", "--output", help="folder to write into (outputs/NAME)")
    verify_verb = verbs.add_parser("verify", help="ask every gate; exit 0 cleared, 1 refused")
    verify_verb.set_defaults(verb=verify_config)
    for verb in (compile_verb, verify_verb):
        _add_config_arguments(verb)


def _add_config_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=_OVERRIDE_HELP)
    verb.add_argument("--config-dir", metavar="DIR", help="a folder of your own configs")
    verb.add_argument("--json", action="store_true", help="print JSON")
