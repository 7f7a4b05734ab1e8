"""Places: every problem of a config says which line, or which override, it comes from."""

from pathlib import Path

import pytest

from podproof.compiler.errors import BadConfig
from podproof.compiler.places import LocatedProblem, place_of, problem_to_dict
from podproof.compiler.read import Request, locate, read
from podproof.runtime.errors import Problem

EXPERIMENT = """\
# @package _global_
defaults:
  - tiny_dpo
  - override /adapter: lora
  - override /trainer: slow
  - _self_
name: Not A Name
trainer:
  warmup_ratio: 0.1
  max_grad_norm: -1
model:
  revision: ${nowhere}
adapter:
  target_modules:
    - q_proj
    - 3
data:
  eval:
    fraction: 0.1
    path: held_out.jsonl
"""
TRAINER = "# Slow.\nweight_decay: -1\noptimizer: sgd\n"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder of one's own with an experiment and a group, and stand above it."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("experiment/bad.yaml", EXPERIMENT), ("trainer/slow.yaml", TRAINER)):
        file = tmp_path / "mine" / name
        file.parent.mkdir(parents=True)
        file.write_text(text)
    return tmp_path / "mine"


def places(*overrides: str, config_dir: Path | None) -> dict[str, str]:
    """Return the place of each problem of a config that must be refused, by key."""
    with pytest.raises(BadConfig) as refused:
        read(Request(overrides, config_dir))
    return {
        problem.where: problem.place if isinstance(problem, LocatedProblem) else ""
        for problem in refused.value.problems
    }


def written(folder: Path, text: str | bytes) -> Path:
    """Write an experiment called odd and return the folder of configs."""
    file = folder / "experiment" / "odd.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def test_each_problem_has_the_line_that_made_it_in_the_file_that_set_it(mine: Path) -> None:
    assert places("experiment=bad", config_dir=mine) == {
        "name": "set in mine/experiment/bad.yaml:7",
        "trainer.warmup_ratio": "set in mine/experiment/bad.yaml:9",
        "trainer.max_grad_norm": "set in mine/experiment/bad.yaml:10",
        "model.revision": "set in mine/experiment/bad.yaml:12",
        "adapter.target_modules": "set in mine/experiment/bad.yaml:14",
        "data.eval": "set in mine/experiment/bad.yaml:18",
        "trainer.weight_decay": "set in mine/trainer/slow.yaml:2",
        "trainer.optimizer": "set in mine/trainer/slow.yaml:3",
    }


def test_a_value_typed_is_found_among_the_overrides_by_its_number(mine: Path) -> None:
    found = places("experiment=bad", "trainer.lr=1", "seed=-1", "unclosed='", config_dir=mine)

    assert found["trainer.lr"] == 'set by override 2: "trainer.lr=1"'
    assert found["seed"] == 'set by override 3: "seed=-1"'
    assert found["unclosed='"] == 'set by override 4: "unclosed=\'"'


def test_what_was_typed_wins_over_files_and_what_was_typed_last_over_the_rest(mine: Path) -> None:
    typed = ("experiment=bad", "trainer.learning_rate=2", "trainer.learning_rate=3")

    found = places(*typed, config_dir=mine)

    assert found["trainer.learning_rate"] == 'set by override 3: "trainer.learning_rate=3"'


def test_a_section_typed_whole_set_every_key_in_it() -> None:
    found = places("experiment=tiny_sft", "data.eval={fraction: 2.0}", config_dir=None)

    assert found["data.eval.fraction"].startswith("set by override 2")


def test_a_problem_of_a_section_is_where_a_part_of_it_was_typed() -> None:
    found = places("experiment=tiny_sft", "data.eval.path=more.jsonl", config_dir=None)

    assert found["data.eval"].startswith("set by override 2")


def test_a_choice_that_is_not_there_is_found_where_it_was_made(mine: Path) -> None:
    folder = written(mine, "# @package _global_\ndefaults:\n  - override /model: llama_tyny\n")

    assert places("model=nope", config_dir=None) == {"model": 'set by override 1: "model=nope"'}
    assert places("experiment=odd", config_dir=folder) == {
        "model": "set in mine/experiment/odd.yaml:3"
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# @package _global_\nname: x\ndata: [1\ntrainer: 2\n", 4),
        ("# @package _global_\nname: x\nname: y\n", 3),
        ("# @package _global_\na: b: c\n", 2),
    ],
    ids=["unclosed", "the same key twice", "two colons"],
)
def test_a_file_that_is_no_yaml_is_named_with_the_line(mine: Path, text: str, line: int) -> None:
    found = places("experiment=odd", config_dir=written(mine, text))

    assert found == {"mine/experiment/odd.yaml": f"set in mine/experiment/odd.yaml:{line}"}


def test_a_file_that_holds_no_keys_is_named(mine: Path) -> None:
    found = places("experiment=odd", config_dir=written(mine, "# @package _global_\n- a\n"))

    assert found == {"config": "set in mine/experiment/odd.yaml:1"}


def test_a_key_that_nobody_set_is_told_with_where_it_would_go(mine: Path) -> None:
    text = "# @package _global_\ndefaults: [tiny_sft]\nscorer:\n  name: own\n"

    found = places("experiment=odd", config_dir=written(mine, text))

    assert found["scorer.file"] == "not set; it would go into mine/experiment/odd.yaml:3"


def test_nobody_is_sent_into_a_file_that_ships(mine: Path) -> None:
    found = places("experiment=qwen3_8b_dpo", "publish=hub", config_dir=None)

    assert found["pod.volume_gb"] == ""


def test_a_problem_a_gate_found_is_located_when_it_is_about_a_key(mine: Path) -> None:
    request = Request(("experiment=bad", "trainer.extra.foo=1"), mine)
    told = Problem("pod_script.py:12", "imports nothing"), Problem("trainer.extra.foo", "unknown")

    script, key = locate(request, told)

    assert script == told[0]
    assert isinstance(key, LocatedProblem)
    assert key.override == 2


def test_a_folder_of_experiments_may_have_any_name(mine: Path) -> None:
    jobs = (mine / "experiment").rename(mine.parent / "jobs")

    with pytest.raises(BadConfig) as refused:
        read(Request(("experiment=bad",), mine, jobs))

    located = {problem.where: place_of(problem) for problem in refused.value.problems}
    assert located["name"] == ("jobs/bad.yaml", 7)
    assert located["trainer.weight_decay"] == ("mine/trainer/slow.yaml", 2)


def test_a_file_of_the_users_comes_before_ours_of_the_same_name(mine: Path) -> None:
    text = (mine.parent / "mine" / "experiment" / "bad.yaml").read_text()
    (mine / "experiment" / "tiny_sft.yaml").write_text(text)

    found = places("experiment=tiny_sft", config_dir=mine)

    assert found["name"] == "set in mine/experiment/tiny_sft.yaml:7"


def test_a_located_problem_is_read_by_machines_in_parts() -> None:
    problem = LocatedProblem("seed", "is odd", "set seed=2", file="a.yaml", line=3)

    assert problem_to_dict(problem) == {
        "where": "seed",
        "what": "is odd",
        "way_out": "set seed=2",
        "file": "a.yaml",
        "line": 3,
        "override": None,
    }


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("rows.jsonl:2", ("rows.jsonl", 2)),
        ("trainer.extra", (None, None)),
        ("dryrun.a run", (None, None)),
    ],
)
def test_a_where_that_is_a_place_is_taken_apart(
    where: str, place: tuple[str | None, int | None]
) -> None:
    assert place_of(Problem(where, "wrong")) == place
