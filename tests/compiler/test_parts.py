"""The optional parts of the runtime: a script carries those that its plan asks for."""

from collections.abc import Mapping
from typing import Any

import pytest

from podproof.compiler.bundle import bundle
from podproof.compiler.errors import NotBundleable
from podproof.compiler.lower import lower
from podproof.compiler.parts import parts_of
from podproof.compiler.read import Request, read
from podproof.compiler.schema import Config
from podproof.compiler.script import compile_run
from podproof.runtime.plan import PublishTo
from tests.compiler.conftest import changed

WITH_PARTS = {
    "core": "def core() -> int:\n    return 1\n",
    "hub": "def hub() -> int:\n    return 2\n",
    "shared": "def shared() -> int:\n    return 3\n",
    "samples": "from podproof.runtime.shared import shared\n\nsamples = shared\n",
    "entry": '''"""Entry."""

from podproof.runtime.core import core
from podproof.runtime.hub import hub
from podproof.runtime.samples import samples

PARTS = {
    "core": core,
    "hub": hub,
    "samples": samples,
}
''',
}


@pytest.mark.parametrize(
    ("kept", "modules"),
    [
        ((), ["entry"]),
        (("hub",), ["hub", "entry"]),
        (("core", "samples"), ["core", "shared", "samples", "entry"]),
    ],
)
def test_only_the_parts_asked_for_ride_along(kept: tuple[str, ...], modules: list[str]) -> None:
    made = bundle(WITH_PARTS, "entry", preamble="# top", constants={}, parts=kept)

    there: dict[str, Any] = {}
    exec(made.text, there)  # noqa: S102 - our own toy
    assert [name for name, _, _ in made.modules] == modules
    assert sorted(there["PARTS"]) == sorted(kept)


@pytest.mark.parametrize(
    ("overrides", "is_carried"),
    [((), False), (("pod.gpu_count=2",), True), (("pod.node_count=2",), True)],
)
def test_a_script_for_one_gpu_carries_nothing_for_several(
    overrides: tuple[str, ...], *, is_carried: bool
) -> None:
    made = compile_run(lower(read(Request(("experiment=tiny_sft", *overrides)))))

    names = {name for name, _, _ in made.modules}
    assert names.isdisjoint({"distributed", "agreement", "starter"}) is not is_carried
    assert "alone" in names


def test_a_part_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(NotBundleable, match=r"PARTS\.mail: is no part"):
        bundle(WITH_PARTS, "entry", preamble="# top", constants={}, parts=("mail",))


@pytest.mark.parametrize(("to", "parts"), [(PublishTo.DIR, set()), (PublishTo.HUB, {"hub"})])
def test_a_script_knows_of_the_hub_only_if_it_publishes_there(
    configs: Mapping[str, Config], to: PublishTo, parts: set[str]
) -> None:
    wanted = {"publish.to": to, "publish.repo_id": "me/tiny"}

    script = compile_run(lower(changed(configs["sft"], wanted)))

    carried = {name for name, _, _ in script.modules}
    assert parts_of(script.run.plan) == parts
    assert carried & {"hub", "hub_repository"} == ({"hub", "hub_repository"} if parts else set())
    assert ("huggingface_hub" in script.text) == bool(parts)
