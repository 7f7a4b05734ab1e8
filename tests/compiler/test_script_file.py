"""A script read back from its file: the same script, or a clear refusal, and never run."""

import json
from pathlib import Path

import pytest

from podproof.compiler.errors import BadScript
from podproof.compiler.ir import PodScript
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run, write_script
from podproof.compiler.script_file import read_script

OWN = '''\
"""A mean of one.

It says "quoted" things.
"""

import statistics
from collections.abc import Mapping

from podproof.runtime.plan import ScorerPlan
from podproof.runtime.readings import Reading
from podproof.runtime.scores import Evaluation, ScoreState

KIND = Reading


def own_components(
    _state: ScoreState, evaluation: Evaluation, _plan: ScorerPlan
) -> Mapping[str, float]:
    """Return the loss."""
    return {"eval_loss": statistics.fmean([evaluation.loss])}


def own_bound(_plan: ScorerPlan) -> tuple[float, float]:
    """Return none."""
    return 0.0, 0.0
'''


def compiled(*overrides: str) -> PodScript:
    return compile_run(lower(read(Request(("experiment=tiny_sft", *overrides)))))


@pytest.fixture(scope="module")
def sound() -> PodScript:
    return compiled()


@pytest.mark.parametrize(
    "overrides",
    [(), ("predictions=text", "pod.requirements.numpy=2.0.0"), ("pod.gpu_count=2",)],
    ids=["plain", "with a part and a pin", "two GPUs"],
)
def test_a_script_read_back_is_the_one_that_was_written(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    script = compiled(*overrides)
    path, _ = write_script(script, tmp_path)

    again = read_script(path)

    assert (again.text, again.sha256) == (script.text, script.sha256)
    assert (again.modules, again.run.plan) == (script.modules, script.run.plan)
    assert again.run.requirements == script.run.requirements
    assert compile_run(again.run).text == script.text


@pytest.mark.parametrize("text", [OWN, OWN.partition("import")[1] + OWN.partition("import")[2]])
def test_a_scorer_of_the_users_own_is_read_back_too(text: str, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(text)
    path, _ = write_script(compiled("scorer=own", f"scorer.file='{own}'"), tmp_path)

    again = read_script(path)

    assert compile_run(again.run).text == path.read_text()


def test_without_a_manifest_the_text_is_its_own_record(sound: PodScript, tmp_path: Path) -> None:
    path = tmp_path / "renamed.py"
    path.write_text(sound.text)

    assert read_script(path).sha256 == sound.sha256


def test_a_text_that_was_changed_keeps_the_hash_on_record(sound: PodScript, tmp_path: Path) -> None:
    path, _ = write_script(sound, tmp_path)
    path.write_text(path.read_text().replace("FLUSH_SECONDS = 30.0", "FLUSH_SECONDS = 31.0"))

    again = read_script(path)

    assert again.sha256 == sound.sha256
    assert compile_run(again.run).text == sound.text != again.text


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("print('hello')\n", "is no pod script"),
        ("PLAN_JSON = open('x').read()\n", "is no pod script"),
        ("PLAN_JSON = '{}'\n", "missing"),
        ("PLAN_JSON = '{'\n", "not JSON"),
        ("def broken(:\n", "is not Python"),
        ("\0", "is not Python"),
    ],
    ids=["foreign", "a plan that is code", "an empty plan", "no JSON", "no Python", "a NUL"],
)
def test_a_file_that_is_no_script_is_refused(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "pod_script.py"
    path.write_text(text)

    with pytest.raises(BadScript) as refused:
        read_script(path)

    assert what in str(refused.value)
    assert str(path) in refused.value.problems[0].where


def test_a_file_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.py").write_bytes(b"\xff\xfe")

    with pytest.raises(BadScript, match="not UTF-8"):
        read_script(tmp_path / "bytes.py")
    with pytest.raises(BadScript, match="cannot be read"):
        read_script(tmp_path / "absent.py")


def test_a_script_whose_line_ends_were_changed_is_refused(sound: PodScript, tmp_path: Path) -> None:
    path = tmp_path / "pod_script.py"
    path.write_bytes(sound.text.replace("\n", "\r\n").encode())

    with pytest.raises(BadScript):
        read_script(path)


def test_a_script_without_its_pins_is_refused(sound: PodScript, tmp_path: Path) -> None:
    path = tmp_path / "pod_script.py"
    path.write_text(sound.text.replace("# /// script", "# /// other"))

    with pytest.raises(BadScript, match="inline metadata"):
        read_script(path)


@pytest.mark.parametrize("record", ["{", "[]", json.dumps({"script": "other.py", "sha256": "0"})])
def test_only_a_manifest_of_this_script_is_its_record(
    record: str, sound: PodScript, tmp_path: Path
) -> None:
    path, manifest = write_script(sound, tmp_path)
    manifest.write_text(record)

    if record == "{":
        with pytest.raises(BadScript, match="is not JSON"):
            read_script(path)
    else:
        assert read_script(path).sha256 == sound.sha256


def test_reading_runs_nothing_of_the_file(sound: PodScript, tmp_path: Path) -> None:
    path = tmp_path / "pod_script.py"
    trap = f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n"
    path.write_text(sound.text + trap)

    read_script(path)

    assert not (tmp_path / "sprung").exists()


def test_the_pod_is_that_of_the_manifest(sound: PodScript, tmp_path: Path) -> None:
    script = compiled("pod.env.A=value", "pod.max_hours=3")
    path, beside = write_script(script, tmp_path)

    with_pod = read_script(path)
    beside.unlink()
    without = read_script(path)

    assert with_pod.knows_pod
    assert with_pod.run.pod.max_hours == 3
    assert [name for name, _ in with_pod.run.pod.env] == ["A"]
    assert not without.knows_pod


def test_a_manifest_whose_pod_cannot_be_read_is_refused(sound: PodScript, tmp_path: Path) -> None:
    path, manifest = write_script(sound, tmp_path)
    manifest.write_text('{"script": "pod_script.py", "pod": []}')

    with pytest.raises(BadScript, match="pod must be an object"):
        read_script(path)
