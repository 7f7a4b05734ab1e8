"""The size gate: what will travel to the pod, against the table of limits."""

import subprocess
from collections.abc import Iterable, Mapping
from importlib import resources

from podproof.compiler.delivery import Parcel, ReportTarget, parcel_of
from podproof.compiler.ir import PodScript
from podproof.compiler.limits import Size, over_hard, over_soft
from podproof.harness.verdict import Surroundings
from podproof.runtime.errors import Problem

# What is only known at launch, as long as it can be: a run id is the name, a date, a time and four
# characters; a token of 32 bytes has 43; a collector has an address of its own.
_RUN_ID_TAIL = "-20260101-000000-abcd"
_REPORT = ReportTarget("https://collector.example.org:65535", "t" * 43)


def size_answer(script: PodScript, _surroundings: Surroundings) -> tuple[str, tuple[Problem, ...]]:
    """Return the sizes in words, and a problem for each hard limit that is exceeded.

    Where none is, a process of this machine is started with all that the pod's would get.
    """
    parcel = _parcel_to_come(script)
    sizes = parcel.sizes
    large = ", ".join(problem.where for problem in over_soft(sizes))
    travels = f"payload {sizes[Size.PAYLOAD]:,} B, request about {sizes[Size.REQUEST]:,} B"
    summary = f"script {sizes[Size.SCRIPT]:,} B, {travels}{f' (large: {large})' if large else ''}"
    problems = over_hard(sizes)
    if problems:
        return summary, problems
    return f"{summary}; a process started with it", kernel_problems(
        parcel.start_command, parcel.env
    )


def measured_sizes(script: PodScript) -> Mapping[Size, int]:
    """Return every size of the launch to come, measured on the very parcel that would be sent."""
    return _parcel_to_come(script).sizes


def kernel_problems(command: str, env: Iterable[tuple[str, str]]) -> tuple[Problem, ...]:
    """Start a process with this argument and this environment; return why it cannot be started.

    Linux takes 128 KiB in one string (MAX_ARG_STRLEN) and a quarter of the stack in all, which
    depends on where it runs. The process does nothing.
    """
    try:
        subprocess.run(
            ["/bin/sh", "-c", "exit 0", command], env=dict(env), check=True, capture_output=True
        )
    except (OSError, ValueError) as error:
        what = f"no process can be started with it: {error}"
        way_out = "make it smaller: a shorter chat template, fewer or shorter pod.env values"
        return (Problem("environment", what, way_out),)
    return ()


def _parcel_to_come(script: PodScript) -> Parcel:
    boot = resources.files("podproof.runtime") / "boot.py"
    run_id = script.run.plan.name + _RUN_ID_TAIL
    source = boot.read_text(encoding="utf-8")
    return parcel_of(script, run_id=run_id, report=_REPORT, boot_source=source)
