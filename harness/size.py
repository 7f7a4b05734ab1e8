"""The size gate: what will travel to the pod, against the table of limits."""

from collections.abc import Mapping
from importlib import resources

from podproof.compiler.delivery import ReportTarget, parcel_of
from podproof.compiler.ir import PodScript
from podproof.compiler.limits import Size, over_hard, over_soft
from podproof.harness.verdict import Surroundings
from podproof.runtime.errors import Problem

# What is only known at launch, as long as it can be: a run id is the name, a date, a time and four
# characters; a token of 32 bytes has 43; a collector has an address of its own.
_RUN_ID_TAIL = "-20260101-000000-abcd"
_REPORT = ReportTarget("https://collector.example.org:65535", "t" * 43)


def size_answer(script: PodScript, _surroundings: Surroundings) -> tuple[str, tuple[Problem, ...]]:
    """Return the sizes in words, and a problem for each hard limit that is exceeded."""
    sizes = measured_sizes(script)
    large = ", ".join(problem.where for problem in over_soft(sizes))
    travels = f"payload {sizes[Size.PAYLOAD]:,} B, request about {sizes[Size.REQUEST]:,} B"
    summary = f"script {sizes[Size.SCRIPT]:,} B, {travels}{f' (large: {large})' if large else ''}"
    return summary, over_hard(sizes)


def measured_sizes(script: PodScript) -> Mapping[Size, int]:
    """Return every size of the launch to come, measured on the very parcel that would be sent."""
    boot = resources.files("podproof.runtime") / "boot.py"
    run_id = script.run.plan.name + _RUN_ID_TAIL
    source = boot.read_text(encoding="utf-8")
    return parcel_of(script, run_id=run_id, report=_REPORT, boot_source=source).sizes
