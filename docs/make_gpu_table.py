# ruff: noqa: INP001 - docs/ is a folder of pages and their scripts, not a package
"""Write docs/reference/gpus.md from compiler/tables/gpus.json.

Run `python docs/make_gpu_table.py` to write the page; with `--check` nothing is written, and the
exit code is 1 when the page is not what would be written.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from podproof.compiler.gpus import Gpu, gpus, priced_on, sources

PAGE = Path(__file__).resolve().parent / "reference" / "gpus.md"

INTRODUCTION = """\
# GPUs

Made by `python docs/make_gpu_table.py` from `compiler/tables/gpus.json`; a test compares it with
that. Do not edit it by hand. `pod.gpu` takes the ids of the first column, in the order in which
they shall be tried.

Memory is in GB of 2^30 bytes. The peak is that of tensor cores in bfloat16 without sparsity, in
TFLOPS. Prices are USD per hour and GPU of {day}: a launch asks RunPod for the price of the day, an
estimate allows 30 % up and down. A dash means that the table does not know.

| id | memory | compute capability | peak | GB/s | secure cloud | community cloud |
|---|---|---|---|---|---|---|
"""


def page() -> str:
    """Return the whole page."""
    rows = (_row(gpu) for gpu in gpus().values())
    told = (f"- {figures}: {source}." for figures, source in sources().items())
    parts = [INTRODUCTION.format(day=priced_on()), *rows, "\n## Where the figures are from\n\n"]
    return "".join([*parts, "\n".join(told), "\n"])


def _row(gpu: Gpu) -> str:
    return f"| {' | '.join(_cells(gpu))} |\n"


def _cells(gpu: Gpu) -> Iterator[str]:
    yield f"`{gpu.gpu_id}`"
    yield str(gpu.memory_gb)
    for figure in (gpu.compute_capability, gpu.bf16_tflops, gpu.bandwidth_gb_per_s):
        yield "-" if figure is None else f"{figure:g}"
    for price in (gpu.secure_usd_per_h, gpu.community_usd_per_h):
        yield "-" if price is None else f"{price:.2f}"


def main() -> int:
    """Write the page, or with --check compare it; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8", newline="\n")
        return 0
    if PAGE.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write(f"{PAGE.name} is out of date: run python docs/make_gpu_table.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
