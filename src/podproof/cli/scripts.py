"""`podproof compile`: from a config to a script."""

import argparse
from pathlib import Path

from podproof.cli.terminal import existing_folder, out, print_json
from podproof.compiler.ir import PodScript
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run, manifest, write_script


def request_of(options: argparse.Namespace) -> Request:
    """Return what the command line asks for; raise BadConfig when --config-dir is no folder."""
    folder = existing_folder(options.config_dir, "--config-dir")
    return Request(tuple(options.overrides), folder)


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


def compiled(request: Request) -> PodScript:
    """Return the script of a request; raise BadConfig or NotBundleable."""
    return compile_run(lower(read(request)))
