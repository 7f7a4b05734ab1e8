"""How long `podproof verify --all` takes for N configs and for 2 N, on one core and on all.

    .venv/bin/python benchmarks/batch.py --configs 50

Wall time and CPU time of whole commands, imports included. Linear cost means that the second N
costs what the first did, so the ratio of 2 N to N is about 2; every core in use means that the
ratio of one process to all is near their number, on a machine that has nothing else to do. The
budget for 1,000 configs at level fast is that both hold.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from podproof.harness.batch import cores

METHODS = ("tiny_sft", "tiny_dpo", "tiny_orpo", "smollm2_sft")


@dataclass(frozen=True)
class Cost:
    """What one command took, in seconds of the clock and of all CPUs together."""

    wall: float
    cpu: float


def write_configs(folder: Path, count: int) -> None:
    """Write this many experiments, no two alike."""
    for number in range(count):
        text = (
            f"# @package _global_\ndefaults: [{METHODS[number % len(METHODS)]}]\nseed: {number}\n"
        )
        (folder / f"run_{number:04}.yaml").write_text(text, encoding="utf-8")


def cost(count: int, level: str, jobs: int) -> Cost:
    """Verify this many configs in a fresh process that must clear all of them."""
    with tempfile.TemporaryDirectory() as folder:
        write_configs(Path(folder), count)
        command = [sys.executable, "-m", "podproof", "verify", "--all", folder]
        command += ["--level", level, "--jobs", str(jobs)]
        started, before = time.perf_counter(), _cpu_seconds()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return Cost(time.perf_counter() - started, _cpu_seconds() - before)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the three costs and the two ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--configs", type=int, default=20, help="N (20)")
    parser.add_argument("--level", default="fast", choices=("static", "fast"))
    options = parser.parse_args()
    count, workers = options.configs, cores()
    one = cost(count, options.level, 1)
    few = cost(count, options.level, workers)
    many = cost(2 * count, options.level, workers)
    load = os.getloadavg()[0]
    print(f"{count:5} configs, 1 process      {one.wall:7.1f} s  CPU {one.cpu:7.1f} s")
    print(f"{count:5} configs, {workers} processes    {few.wall:7.1f} s  CPU {few.cpu:7.1f} s")
    print(
        f"{2 * count:5} configs, {workers} processes    {many.wall:7.1f} s  CPU {many.cpu:7.1f} s"
    )
    wall, cpu = many.wall / few.wall, many.cpu / few.cpu
    print(f"2 N to N                      {wall:.2f} wall, {cpu:.2f} CPU")
    gain = one.wall / few.wall
    print(f"1 process to {workers}                {gain:.2f} wall (load average {load:.1f})")


if __name__ == "__main__":
    main()
