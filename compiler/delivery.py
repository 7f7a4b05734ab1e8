"""From a PodScript to what a pod is started with: one command, and the environment it reads.

The script travels without what only people read (wire.py), compressed, in pieces small enough for
everything on the way, with the sha256 of the text that travels; the boot code goes beside it.
Nothing in it means anything to a shell, a template or a quote.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from podproof.compiler.ir import PodScript, Provider
from podproof.compiler.limits import Size, pack, pack_boot, unpack as unpack_payload
from podproof.compiler.wire import wire_form

CHUNK_CHARS = 12_000

# One pair of single quotes, and nothing inside that GraphQL or a splitter of words could misread.
# Bash hands the boot code to Python through a pipe, so pods that share a machine share no file;
# `exec` makes Python the container's first process, the one that is told to stop.
START_COMMAND = "bash -c 'exec python3 -u <(echo $PS_BOOT|base64 -d|gzip -d)'"

_Env = tuple[tuple[str, str], ...]

# Everything in the SDK's request but the environment, the command and the names: measured 0.7 KB.
_REQUEST_FRAME_BYTES = 1_000
# `{ key: "", value: "" }, ` and the backslashes that JSON puts before its four quotes.
_REQUEST_PAIR_BYTES = 28


@dataclass(frozen=True)
class ReportTarget:
    """Where the pod reports to, and the token that lets it report for this run alone."""

    url: str
    token: str = field(repr=False)


@dataclass(frozen=True)
class Parcel:
    """What a pod is started with; `env` may hold secrets."""

    start_command: str
    env: _Env = field(repr=False)
    sizes: Mapping[Size, int]


def parcel_of(
    script: PodScript, *, run_id: str, report: ReportTarget | None, boot_source: str
) -> Parcel:
    """Return what starts this script on a pod, measured but not judged.

    `boot_source` is the text of podproof.runtime.boot.
    """
    travels = wire_form(script.text)
    payload = pack(travels)
    spec = script.run.pod
    secrets = tuple((key, f"{{{{ RUNPOD_SECRET_{name} }}}}") for key, name in spec.secrets)
    env = (
        *_script_env(payload, hashlib.sha256(travels.encode()).hexdigest()),
        ("PS_BOOT", pack_boot(wire_form(boot_source))),
        *_order_env(script, run_id, report),
        *spec.env,
        *secrets,
    )
    return Parcel(START_COMMAND, env, _sizes(script, payload, run_id, env))


def unpack(env: Mapping[str, str]) -> str:
    """Return what `parcel_of` put into an environment; raise ValueError when it is damaged.

    The boot code does the same on the pod, without us.
    """
    script = unpack_payload("".join(env[f"PS_{number:02d}"] for number in range(int(env["PS_N"]))))
    sha256 = hashlib.sha256(script).hexdigest()
    if sha256 != env["PS_SHA"]:
        raise ValueError(f"the script has sha256 {sha256}, not {env['PS_SHA']}")
    return script.decode()


def _script_env(payload: str, sha256: str) -> Iterator[tuple[str, str]]:
    starts = range(0, len(payload), CHUNK_CHARS)
    yield "PS_N", str(len(starts))
    yield "PS_SHA", sha256
    for number, start in enumerate(starts):
        yield f"PS_{number:02d}", payload[start : start + CHUNK_CHARS]


def _order_env(
    script: PodScript, run_id: str, report: ReportTarget | None
) -> Iterator[tuple[str, str]]:
    yield "PODPROOF_RUN_ID", run_id
    yield "PODPROOF_MAX_SECONDS", str(math.ceil(script.run.pod.max_hours * 3600))
    yield "PODPROOF_LIMIT", "time"
    yield "PODPROOF_MAX_RESTARTS", str(script.run.plan.recovery.max_restarts)
    if script.run.pod.provider is not Provider.LOCAL and script.run.pod.network_volume is None:
        yield "PODPROOF_VOLUME_ENDS_WITH_POD", "1"
    if report is not None:
        yield "PODPROOF_REPORT_URL", report.url
        yield "PODPROOF_REPORT_TOKEN", report.token


def _sizes(script: PodScript, payload: str, run_id: str, env: _Env) -> Mapping[Size, int]:
    names = len(run_id) + len(script.run.pod.image)
    pairs = sum(len(json.dumps([key, value])) + _REQUEST_PAIR_BYTES for key, value in env)
    strings = [len(f"{key}={value}\0".encode()) for key, value in env]
    return {
        Size.SCRIPT: len(script.text.encode()),
        Size.PAYLOAD: len(payload),
        Size.START_COMMAND: len(START_COMMAND),
        Size.ENV_STRING: max(strings) - 1,
        Size.ENV_COUNT: len(env),
        Size.ENV_TOTAL: sum(strings),
        Size.REQUEST: _REQUEST_FRAME_BYTES + names + len(START_COMMAND) + pairs,
        Size.POD_NAME: len(run_id),
    }
