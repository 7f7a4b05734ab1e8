# ruff: noqa: INP001 - docs/ is a folder of pages and their scripts, not a package
"""Draw verify.svg and show.svg from real output, for the README.

Run `make demo`, then `python docs/images/make_images.py`. The gates are asked here and now; the
run shown is the newest one in the store below .podproof. Paths are shown from the checkout on, and
the fonts that rich would load from the network are left out.
"""

import io
import re
from dataclasses import replace
from pathlib import Path

from rich.console import Console, RenderableType

import podproof
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run
from podproof.harness.gates import clear
from podproof.harness.report import verdict_table
from podproof.harness.verdict import Surroundings
from podproof.monitor.records import RunRecord
from podproof.monitor.show import show_run
from podproof.monitor.store import open_store

IMAGES = Path(__file__).resolve().parent
ROOT = IMAGES.parent.parent
EXPERIMENT = "experiment=tiny_sft"
WIDTH = 124


def main() -> None:
    """Write both images."""
    script = compile_run(lower(read(Request((EXPERIMENT,)))))
    result = clear(script, Surroundings((Path(podproof.__file__).parent,)))
    draw("verify", f"podproof verify {EXPERIMENT}", verdict_table(result))
    draw("show", "podproof show", show_run(newest_run()))


def newest_run() -> RunRecord:
    """Return the newest run of `make demo`, its paths shortened to start in the checkout."""
    with open_store(ROOT / ".podproof" / "podproof.db") as store:
        record = store.run(store.runs()[0].run_id)
    assert record.launch is not None
    assert record.delivery is not None
    launch = replace(
        record.launch,
        log_path=_shortened(record.launch.log_path),
        output_path=_shortened(record.launch.output_path),
    )
    delivery = replace(record.delivery, path=_shortened(record.delivery.path))
    return replace(record, launch=launch, delivery=delivery)


def _shortened(path: str | None) -> str:
    return str(path).removeprefix(f"{ROOT}/")


def draw(name: str, command: str, output: RenderableType) -> None:
    """Write NAME.svg: a command as it is typed, and what it prints."""
    console = Console(record=True, width=WIDTH, highlight=False, file=io.StringIO())
    console.print(f"[bold]$ {command}[/bold]")
    console.print(output)
    svg = console.export_svg(title="podproof", unique_id=name)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    (IMAGES / f"{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
