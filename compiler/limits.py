"""What a launch can carry: sizes in one table with their sources, names, and characters."""

import base64
import bz2
import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from podproof.runtime.boot import BASE85_OF_WIRE
from podproof.runtime.errors import Problem

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RESERVED_ENV = re.compile(r"(RUNPOD|PODPROOF|PS)_.*|PATH|PUBLIC_KEY|LD_PRELOAD|PYTHONPATH")

# What RunPod's SDK, which escapes nothing, carries verbatim; measured over all of printable ASCII
# and the control characters. The five left out end the GraphQL text, change it silently, or become
# GraphQL of their own; half of a surrogate pair is no text that could be sent at all.
CARRIED = re.compile(r'[^"\\\r\n\x00\ud800-\udfff]*')

_WIRE_OF_BASE85 = {plain: wire for wire, plain in BASE85_OF_WIRE.items()}


class Size(StrEnum):
    """The sizes that are limited."""

    SCRIPT = "script"
    PAYLOAD = "payload"
    START_COMMAND = "start_command"
    ENV_STRING = "env_string"
    ENV_COUNT = "env_count"
    ENV_TOTAL = "env_total"
    REQUEST = "request"
    POD_NAME = "pod_name"


@dataclass(frozen=True)
class Limit:
    """One limit: above `soft` a launch is warned about, above `hard` it is refused.

    `unit` says what is counted, `source` why the numbers are what they are.
    """

    soft: int
    hard: int
    unit: str
    source: str


LIMITS: Mapping[Size, Limit] = {
    Size.SCRIPT: Limit(
        262_144, 393_216, "bytes", "our own: a person reads the script before paying for it"
    ),
    Size.PAYLOAD: Limit(
        49_152, 57_344, "characters", "our own: leaves room for the boot code in the request"
    ),
    Size.START_COMMAND: Limit(
        2_000, 4_000, "bytes", "RunPod: undocumented; about 100 KB was refused, 4 KB is common"
    ),
    Size.ENV_STRING: Limit(
        16_000, 131_071, "bytes", "Linux: the longest KEY=VALUE one process can be given"
    ),
    Size.ENV_COUNT: Limit(40, 50, "variables", "RunPod: documented maximum for one pod"),
    Size.ENV_TOTAL: Limit(
        60_000, 66_000, "bytes", "RunPod: undocumented; requests near 70 KB passed, 100 KB failed"
    ),
    Size.REQUEST: Limit(
        60_000, 66_000, "bytes", "RunPod: undocumented; requests near 70 KB passed, 100 KB failed"
    ),
    Size.POD_NAME: Limit(60, 191, "characters", "RunPod: maxLength in its OpenAPI description"),
}


def pack(text: str) -> str:
    """Return the payload that carries a script: its UTF-8 bytes in bzip2, those in base85.

    The five characters of base85 that a shell or a template could act on are replaced, so that the
    payload is as harmless as base64 would be, and 6 % shorter. A packer may change from version to
    version, so compare scripts by the sha256 of the text, never by their payloads.
    """
    return base64.b85encode(bz2.compress(text.encode())).decode("ascii").translate(_WIRE_OF_BASE85)


def unpack(payload: str) -> bytes:
    """Return the bytes that `pack` carried; raise ValueError or OSError for a damaged payload."""
    return bz2.decompress(base64.b85decode(payload.translate(BASE85_OF_WIRE)))


def pack_boot(source: str) -> str:
    """Return what carries the boot program: base64 of gzip, which any image's shell unpacks."""
    return base64.b64encode(gzip.compress(source.encode(), mtime=0)).decode("ascii")


def over_hard(sizes: Mapping[Size, int]) -> tuple[Problem, ...]:
    """Return one problem for each size above its hard limit, in the table's order.

    >>> [problem.where for problem in over_hard({Size.ENV_COUNT: 51, Size.POD_NAME: 61})]
    ['env_count']
    """
    return tuple(
        _problem(size, sizes[size], limit.hard, limit)
        for size, limit in LIMITS.items()
        if sizes.get(size, 0) > limit.hard
    )


def over_soft(sizes: Mapping[Size, int]) -> tuple[Problem, ...]:
    """Return one problem for each size above its soft limit but within its hard one.

    >>> [problem.where for problem in over_soft({Size.ENV_COUNT: 51, Size.POD_NAME: 61})]
    ['pod_name']
    """
    return tuple(
        _problem(size, sizes[size], limit.soft, limit)
        for size, limit in LIMITS.items()
        if limit.soft < sizes.get(size, 0) <= limit.hard
    )


_WAYS_OUT: Mapping[Size, str] = {
    Size.SCRIPT: "shorten what the config carries as text, such as model.chat_template",
    Size.PAYLOAD: "shorten what the config carries as text, such as model.chat_template",
    Size.START_COMMAND: "this is podproof's own text; please report it",
    Size.ENV_STRING: "put the value on the network volume and pass its path",
    Size.ENV_COUNT: "pass fewer variables in pod.env and pod.secrets",
    Size.ENV_TOTAL: "pass less in pod.env, or put it on the network volume",
    Size.REQUEST: "pass less in pod.env, or put it on the network volume",
    Size.POD_NAME: "choose a shorter name",
}


def _problem(size: Size, measured: int, allowed: int, limit: Limit) -> Problem:
    what = f"{measured:,} {limit.unit}, at most {allowed:,} ({limit.source})"
    return Problem(size.value, what, _WAYS_OUT[size])
