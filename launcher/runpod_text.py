"""What may stand in a text that RunPod's SDK puts between double quotes without escaping it."""

from collections.abc import Iterator

from podproof.compiler.limits import CARRIED
from podproof.launcher.client import PodRequest
from podproof.runtime.errors import Problem

_NAMES = {'"': "a double quote", "\\": "a backslash", "\r": "CR", "\n": "LF", "\0": "NUL"}


def hostile_texts(request: PodRequest) -> tuple[Problem, ...]:
    """Return a problem for each text of the request that the SDK would not carry as it stands.

    The text itself, which may be a secret, is not shown.
    """
    problems = (hostile_text(where, text) for where, text in _texts(request))
    return tuple(problem for problem in problems if problem is not None)


def hostile_text(where: str, text: str) -> Problem | None:
    """Return what is wrong with one text, or None.

    >>> print(hostile_text("env.TOKEN", 'a"b'))
    env.TOKEN: has a double quote at character 2, which RunPod's SDK does not carry
      way out: use a RunPod secret, or pass the value in base64
    """
    match = CARRIED.match(text)
    assert match is not None
    if match.end() == len(text):
        return None
    name = _NAMES.get(text[match.end()], "half of a surrogate pair")
    what = f"has {name} at character {match.end() + 1}"
    return Problem(
        where,
        f"{what}, which RunPod's SDK does not carry",
        "use a RunPod secret, or pass the value in base64",
    )


def _texts(request: PodRequest) -> Iterator[tuple[str, str]]:
    yield "name", request.name
    yield "image", request.image
    yield "gpu", request.gpu or ""
    yield "data_center", request.data_center or ""
    yield "network_volume", request.network_volume or ""
    yield "start_command", request.start_command
    for number, version in enumerate(request.cuda_versions):
        yield f"cuda_versions[{number}]", version
    for number, (key, value) in enumerate(request.env):
        yield f"env[{number}]", key
        yield f"env.{key}" if CARRIED.fullmatch(key) else f"env[{number}]", value
