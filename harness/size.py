"""The size gate: what will travel to the pod, against the table of limits."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from podproof.compiler.ir import PodScript
from podproof.compiler.limits import Size, over_hard, over_soft, pack, pack_boot
from podproof.runtime.errors import Problem

# Names and quotes around each variable in the request, and its fixed part; generous on purpose.
_REQUEST_OVERHEAD_PER_VARIABLE = 24
_REQUEST_OVERHEAD = 1_500
# Variables that podproof adds besides the payload: run, report, deadline, restarts, boot, hash.
_OWN_VARIABLES = 9
_CHUNK = 12_000


def size_answer(script: PodScript, _data_roots: Sequence[Path]) -> tuple[str, tuple[Problem, ...]]:
    """Return the sizes in words, and a problem for each hard limit that is exceeded."""
    sizes = measured_sizes(script)
    large = ", ".join(problem.where for problem in over_soft(sizes))
    travels = f"payload {sizes[Size.PAYLOAD]:,} B, request about {sizes[Size.REQUEST]:,} B"
    summary = f"script {sizes[Size.SCRIPT]:,} B, {travels}{f' (large: {large})' if large else ''}"
    return summary, over_hard(sizes)


def measured_sizes(script: PodScript) -> Mapping[Size, int]:
    """Return every size of a launch that is known before it: script, payload, environment, name."""
    payload = pack(script.text)
    chunks = -(-len(payload) // _CHUNK)
    pod = script.run.pod
    user_env = [f"{key}={value}" for key, value in (*pod.env, *pod.secrets)]
    env_count = chunks + _OWN_VARIABLES + len(user_env)
    env_total = len(payload) + len(_boot_payload()) + sum(len(item.encode()) for item in user_env)
    longest = max([min(len(payload), _CHUNK), *(len(item.encode()) for item in user_env)])
    return {
        Size.SCRIPT: len(script.text.encode()),
        Size.PAYLOAD: len(payload),
        Size.ENV_STRING: longest,
        Size.ENV_COUNT: env_count,
        Size.ENV_TOTAL: env_total,
        Size.REQUEST: env_total + env_count * _REQUEST_OVERHEAD_PER_VARIABLE + _REQUEST_OVERHEAD,
        # A run id is the name, a date, a time and four characters.
        Size.POD_NAME: len(script.run.plan.name) + len("-20260101-000000-abcd"),
    }


def _boot_payload() -> str:
    boot = resources.files("podproof.runtime") / "boot.py"
    return pack_boot(boot.read_text(encoding="utf-8"))
