"""What the data gate remembers: by the bytes, for the same question, and never a lie."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from podproof.harness import data
from podproof.harness.examination import examine
from podproof.harness.gates import clear
from podproof.harness.judgement import judgement
from podproof.harness.report import judgement_to_dict, verdicts_to_dicts
from podproof.harness.row_cache import (
    cache_key,
    code_sha256,
    library_versions,
    remember,
    remembered,
)
from podproof.harness.verdict import Surroundings
from podproof.runtime.plan import DataPlan, Plan
from tests.harness.conftest import script_of
from tests.harness.data_world import Answered, ask, data_of, model_folder, plan_of, talks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder for rows beside the home, which is tmp_path/home."""
    place = tmp_path / "rows"
    place.mkdir()
    return place


def again(folder: Path, plan: Plan) -> Answered:
    return ask(folder, plan, folder.parent / "home")


def is_cached(answered: Answered) -> bool:
    return bool(answered.details.get("cached"))


def entries(folder: Path) -> list[Path]:
    return sorted((folder.parent / "home" / "cache" / "data").iterdir())


def test_the_second_look_at_the_same_bytes_says_the_same_and_says_so(folder: Path) -> None:
    plan = plan_of(data_of(folder, talks(9)), max_length=64)

    first, second = again(folder, plan), again(folder, plan)

    assert (is_cached(first), is_cached(second)) == (False, True)
    assert second.summary == first.summary
    assert {**first.details, "cached": True} == second.details


def test_what_was_read_of_a_file_that_changed_meanwhile_is_not_remembered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(data_of(folder, talks(9)), max_length=64)
    rows = folder / "rows.jsonl"
    whole = rows.read_bytes()

    def changed_meanwhile(*given: Any) -> Any:
        rows.write_bytes(whole + whole)
        return examine(*given)

    monkeypatch.setattr(data, "examine", changed_meanwhile)
    again(folder, plan)
    monkeypatch.undo()
    rows.write_bytes(whole)

    assert not is_cached(again(folder, plan))


def test_a_refusal_is_remembered_too(folder: Path) -> None:
    plan = plan_of(data_of(folder, [*talks(9), {"messages": []}]))

    first, second = again(folder, plan), again(folder, plan)

    assert is_cached(second)
    assert second.problems == first.problems
    assert first.problems


def test_one_byte_more_is_looked_at_again(folder: Path) -> None:
    plan = plan_of(data_of(folder, talks(9)))
    again(folder, plan)
    data_of(folder, talks(10))

    assert not is_cached(again(folder, plan))


@pytest.mark.parametrize("changed", ["code_sha256", "library_versions"])
def test_other_code_or_another_library_is_asked_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    plan = plan_of(data_of(folder, talks(9)))
    again(folder, plan)
    monkeypatch.setattr(data, changed, lambda: "another")

    assert not is_cached(again(folder, plan))


def test_the_versions_are_those_that_are_installed() -> None:
    versions = library_versions()

    assert versions["jinja2"]
    assert all(isinstance(known, str) for known in versions.values())


def test_another_question_is_asked_again(folder: Path) -> None:
    data = data_of(folder, talks(9))
    again(folder, plan_of(data))

    assert not is_cached(again(folder, plan_of(replace(data, max_rows=5))))
    assert not is_cached(again(folder, plan_of(data, max_length=64)))


def test_what_has_no_part_in_the_answer_does_not_count(folder: Path) -> None:
    data = data_of(folder, talks(9))
    again(folder, plan_of(data, learning_rate=1e-5, eval_steps=4))

    assert is_cached(again(folder, plan_of(data, learning_rate=1e-3, eval_steps=8)))


def test_another_tokenizer_is_asked_again(folder: Path) -> None:
    model = model_folder(folder)
    plan = plan_of(data_of(folder, talks(9)), model=model)
    again(folder, plan)
    config = Path(model.name_or_path) / "tokenizer_config.json"
    config.write_text(config.read_text() + " ")

    assert not is_cached(again(folder, plan))
    assert is_cached(again(folder, plan))


def test_other_code_forgets(folder: Path) -> None:
    path, rules = folder / "rows.jsonl", folder / "rules"
    path.write_text("{}")
    rules.mkdir()
    (rules / "rule.py").write_text("MOST = 1")
    more = folder / "more"
    more.mkdir()
    (more / "rule.py").write_text("MOST = 2")

    keys = {cache_key([path], {"code": code_sha256(where)}) for where in (rules, more)}

    assert len(keys) == 2
    assert code_sha256() not in {code_sha256(rules), code_sha256(more)}


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"facts": 3}', '{"problems": [{}]}'])
def test_an_entry_that_is_damaged_is_passed_over_and_mended(folder: Path, content: str) -> None:
    plan = plan_of(data_of(folder, talks(9)))
    again(folder, plan)
    (entry,) = entries(folder)
    entry.write_text(content)

    assert not is_cached(again(folder, plan))
    assert is_cached(again(folder, plan))


def test_without_a_home_nothing_is_remembered(tmp_path: Path) -> None:
    plan = plan_of(data_of(tmp_path, talks(9)))
    ask(tmp_path, plan)

    assert not is_cached(ask(tmp_path, plan))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


def test_a_home_that_cannot_be_written_costs_nothing_but_time(folder: Path) -> None:
    (folder.parent / "home").write_text("a file where the folder should be")
    plan = plan_of(data_of(folder, talks(9)))

    assert again(folder, plan).problems == ()
    assert not is_cached(again(folder, plan))


def test_an_entry_that_cannot_take_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    remember(tmp_path, "key", {"n": 1})
    taken = tmp_path / "cache" / "data" / "taken.json"
    (taken / "inside").mkdir(parents=True)

    remember(tmp_path, "taken", {"n": 2})

    assert remembered(tmp_path, "key") == {"n": 1}
    assert remembered(tmp_path, "taken") is None
    assert sorted(path.name for path in taken.parent.iterdir()) == ["key.json", "taken.json"]


def test_no_text_of_a_row_is_kept(folder: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "my pass phrase is sesame"}]}] * 3
    again(folder, plan_of(data_of(folder, rows)))

    (entry,) = entries(folder)
    assert "sesame" not in entry.read_text()
    assert json.loads(entry.read_text())["problems"]


def test_the_manifest_does_not_tell_whether_something_was_remembered(tmp_path: Path) -> None:
    script = script_of("experiment=tiny_sft", "gates=static")
    surroundings = Surroundings((Path(__file__).parents[2],), tmp_path / "home")

    first, second = clear(script, surroundings), clear(script, surroundings)

    assert verdicts_to_dicts(first.verdicts) == verdicts_to_dicts(second.verdicts)
    data = next(
        item
        for item in judgement_to_dict(judgement("", "", second))["verdicts"]
        if item["gate"] == "data"
    )
    assert data["details"]["cached"]


def test_the_files_name_is_part_of_the_question(folder: Path) -> None:
    data_of(folder, [*talks(2), {"messages": []}])
    (folder / "other.jsonl").write_bytes((folder / "rows.jsonl").read_bytes())
    again(folder, plan_of(DataPlan(path="rows.jsonl")))

    assert again(folder, plan_of(DataPlan(path="other.jsonl"))).problems[0].where == "other.jsonl:3"
