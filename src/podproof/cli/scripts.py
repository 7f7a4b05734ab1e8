"""`podproof compile` and `podproof verify`: from a config to a script, and to a yes or no."""

import argparse
from collections.abc import Callable
from pathlib import Path

from podproof.cli.terminal import (
    EXIT_REFUSED,
    existing_folder,
    home,
    out,
    print_json,
    progress,
    progress_line,
    show,
    show_error,
)
from podproof.compiler.errors import BadConfig
from podproof.compiler.ir import PodScript
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run, manifest, write_script
from podproof.harness.verdict import Surroundings


def request_of(options: argparse.Namespace) -> Request:
    """Return what the command line asks for; raise BadConfig when --config-dir is no folder."""
    folder = existing_folder(options.config_dir, "--config-dir")
    return Request(tuple(options.overrides), folder)


def surroundings(update: Callable[[str], object] = str) -> Surroundings:
    """Return what the gates may look at: data here and in the shipped examples, and our home.

    `update` is told in one line how far a gate is.
    """

    def told(what: str, share: float | None) -> None:
        update(progress_line(what, share))

    return Surroundings(data_roots(), home(), told)


def data_roots() -> tuple[Path, ...]:
    """Return where data files are looked up: here, then in the examples that ship with podproof."""
    import podproof

    return (Path.cwd(), Path(podproof.__file__).parent)


def compile_config(options: argparse.Namespace) -> int:
    """Write pod_script.py and manifest.json; return the exit code."""
    script = compiled(request_of(options))
    folder = Path(options.output or f"outputs/{script.run.plan.name}")
    path, _ = write_script(script, folder)
    if options.json:
        print_json({**manifest(script), "path": str(path)})
    else:
        size = len(script.text.encode("utf-8"))
        out().print(f"{path}  {size:,} bytes  sha256 {script.sha256[:12]}", soft_wrap=True)
    return 0


def verify_config(options: argparse.Namespace) -> int:
    """Ask every gate and print the report; return 0 when cleared, 1 when refused.

    With --output the script is written too, its manifest carrying the verdicts.
    """
    # The gates import Hypothesis, which compile has no use for.
    from podproof.harness.gates import clear, refused_config
    from podproof.harness.report import result_to_dict, verdict_table, verdicts_to_dicts
    from podproof.harness.verdict import Cleared

    try:
        script = compiled(request_of(options))
    except BadConfig as error:
        if options.json:
            print_json(result_to_dict(refused_config(error)))
        else:
            show_error(error)
        return error.exit_code
    with progress("asking the gates") as update:
        result = clear(script, surroundings(update), on_gate=lambda gate: update(f"gate {gate}"))
    if options.output:
        write_script(script, Path(options.output), verdicts_to_dicts(result.verdicts))
    if options.json:
        print_json(result_to_dict(result))
    else:
        show(verdict_table(result))
    return 0 if isinstance(result, Cleared) else EXIT_REFUSED


def compiled(request: Request) -> PodScript:
    """Return the script of a request; raise BadConfig or NotBundleable."""
    return compile_run(lower(read(request)))
