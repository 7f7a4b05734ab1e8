"""How long `podproof compile` takes beside importing Hydra and composing the same config.

    .venv/bin/python benchmarks/compile.py

Both run in processes of their own, taken in turns on the same machine; what counts is the ratio
of the medians. The budget is a ratio of 2 and 60 MB.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 7

COMPOSE = """
from hydra import compose, initialize_config_module
from podproof.compiler.schema import register_defaults
register_defaults()
with initialize_config_module("podproof.conf", version_base="1.3"):
    compose("config", overrides=["experiment=tiny_sft"])
"""


def seconds(command: list[str]) -> float:
    """Return the wall time of one command that must succeed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Print the two medians, their ratio, and the largest process seen."""
    with tempfile.TemporaryDirectory() as folder:
        compile_command = [sys.executable, "-m", "podproof", "compile", "experiment=tiny_sft"]
        pairs = [
            (seconds([sys.executable, "-c", COMPOSE]), seconds([*compile_command, "-o", folder]))
            for _ in range(ROUNDS)
        ]
    composing, compiling = (statistics.median(times) for times in zip(*pairs, strict=True))
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"hydra, import and compose  {composing:.2f} s")
    print(f"podproof compile           {compiling:.2f} s")
    print(f"ratio                      {compiling / composing:.2f} (budget 2)")
    print(f"largest process            {peak_mb:.0f} MB (budget 60)")


if __name__ == "__main__":
    main()
