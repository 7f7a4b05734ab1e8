"""Tokens in the data gate: counted as the trainer counts, and refused where nothing is learnt."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from podproof.harness import token_findings
from podproof.harness.token_lengths import token_lengths
from podproof.harness.tokenizer import TokenizerFiles, find_tokenizer, load_tokenizer
from podproof.runtime.data import read_data
from podproof.runtime.models import DEFAULT_CHAT_TEMPLATE, _tokenizer_from_nothing
from podproof.runtime.plan import DataPlan, EvalPlan, MethodName, ModelInit, ModelPlan
from podproof.runtime.rows import row_texts
from tests.harness.data_world import (
    PLAIN_TEMPLATE,
    USER,
    ask,
    data_of,
    model_folder,
    pair,
    plan_of,
    talk,
    talks,
    write_rows,
)

LONG = "word " * 200


def late(number: int) -> dict[str, Any]:
    asked = {"role": "user", "content": f"{number} {LONG}"}
    return {"messages": [asked, {"role": "assistant", "content": f"{number}."}]}


def tokenizer_of(model: ModelPlan) -> Any:
    """Return what transformers makes of a model's folder."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(model.name_or_path)


@pytest.mark.parametrize("method", [MethodName.DPO, MethodName.ORPO])
def test_a_prompt_that_fills_max_length_is_refused_by_row(
    tmp_path: Path, method: MethodName
) -> None:
    data = data_of(tmp_path, [*map(pair, range(9)), pair(9, LONG)])

    answered = ask(tmp_path, plan_of(data, method=method, max_length=64))

    assert answered.problems[0].where == "rows.jsonl:10"
    assert "max_length=64 leaves none to answer" in answered.problems[0].what
    assert answered.problems[-1].where == "method.max_length"


def test_a_prompt_that_fills_max_length_is_dropped_within_the_share(tmp_path: Path) -> None:
    data = data_of(tmp_path, [*map(pair, range(9)), pair(9, LONG)], max_bad_fraction=0.1)

    answered = ask(tmp_path, plan_of(data, method=MethodName.ORPO, max_length=64))

    assert answered.problems == ()
    assert "1 of 10 rows cannot be trained on" in answered.summary
    assert answered.details["tokens"]["train"]["no_room"] == 1


def test_rows_to_train_on_and_to_evaluate_on_are_told_apart(tmp_path: Path) -> None:
    rows = [pair(number, LONG) for number in range(10)]
    data = data_of(tmp_path, rows, eval=EvalPlan(fraction=0.2))

    answered = ask(tmp_path, plan_of(data, method=MethodName.ORPO, max_length=64))

    closing = [item.what for item in answered.problems if item.where == "method.max_length"]
    assert [what.partition(" (")[0] for what in closing] == [
        "8 of 8 rows cannot be trained on",
        "2 of 2 rows cannot be evaluated on",
    ]


@pytest.mark.parametrize(
    "arguments", [{"max_length": None}, {"max_length": 64, "truncation_mode": "keep_end"}]
)
def test_long_prompts_pass_where_no_answer_is_cut_away(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    data = data_of(tmp_path, [*map(pair, range(9)), pair(9, LONG)])

    answered = ask(tmp_path, plan_of(data, method=MethodName.DPO, **arguments))

    assert answered.problems == ()


def test_a_long_prompt_among_rows_that_are_not_used_is_no_matter(tmp_path: Path) -> None:
    data = data_of(tmp_path, [*map(pair, range(9)), pair(9, LONG)], max_rows=9)

    answered = ask(tmp_path, plan_of(data, method=MethodName.ORPO, max_length=64))

    assert answered.problems == ()


def test_a_long_answer_is_cut_and_told(tmp_path: Path) -> None:
    data = data_of(tmp_path, [*talks(8), talk(9, LONG)])

    answered = ask(tmp_path, plan_of(data, max_length=64))

    assert answered.problems == ()
    assert "1 of 9 train rows are cut at max_length 64" in answered.summary


def test_rows_cut_before_the_assistant_speaks_are_told(tmp_path: Path) -> None:
    data = data_of(tmp_path, [*talks(8), late(8)])

    answered = ask(tmp_path, plan_of(data, max_length=64))

    assert answered.problems == ()
    assert "1 train rows are cut before the assistant says a word" in answered.summary


def test_rows_of_which_most_are_cut_before_the_assistant_speaks_are_refused(
    tmp_path: Path,
) -> None:
    data = data_of(tmp_path, [*talks(4), *map(late, range(5))], [late(9), late(10)])

    answered = ask(tmp_path, plan_of(data, max_length=64))

    assert [item.where for item in answered.problems] == ["method.max_length"] * 2
    assert "64 tokens end before the assistant says a word in 5 of 9 train rows" in answered.text
    assert "in 2 of 2 eval rows" in answered.text


@pytest.mark.parametrize("evaluation", [[talk(9), late(9)], [late(9)]])
def test_half_of_the_rows_may_be_cut_before_the_assistant_speaks(
    tmp_path: Path, evaluation: list[Any]
) -> None:
    data = data_of(tmp_path, [*talks(4), *map(late, range(4))], evaluation)

    answered = ask(tmp_path, plan_of(data, max_length=64))

    assert answered.problems == ()
    assert "4 train rows are cut before the assistant says a word" in answered.summary


def test_a_template_without_marks_hides_no_row_that_is_cut(tmp_path: Path) -> None:
    model = model_folder(tmp_path, chat_template=PLAIN_TEMPLATE)
    data = data_of(tmp_path, [*talks(4), *map(late, range(5))])

    refused = ask(tmp_path, plan_of(data, model=model, max_length=64))
    passed = ask(tmp_path, plan_of(data, model=model, max_length=4096))

    assert [item.where for item in refused.problems] == ["method.max_length"]
    assert passed.problems == ()


def test_what_is_cut_of_most_rows_is_told_as_a_share_of_all_tokens(tmp_path: Path) -> None:
    answers = [talk(number, LONG) for number in range(5)]

    most = ask(tmp_path, plan_of(data_of(tmp_path, [*talks(4), *answers]), max_length=64))
    some = ask(tmp_path, plan_of(data_of(tmp_path, [*talks(5), *answers]), max_length=64))

    assert most.problems == ()
    assert "% of all train tokens, and the ends of most rows" in most.summary
    assert "of all train tokens" not in some.summary


def test_pairs_that_keep_their_end_are_compared_by_their_end(tmp_path: Path) -> None:
    differing = {**pair(1), "chosen": f"{LONG}yes", "rejected": f"{LONG}no"}
    data = data_of(tmp_path, [*map(pair, range(2, 9)), differing])

    arguments: dict[str, Any] = {"max_length": 64, "truncation_mode": "keep_end"}
    answered = ask(tmp_path, plan_of(data, method=MethodName.DPO, **arguments))

    assert "are cut to the same tokens" not in answered.summary


def test_rows_of_which_nothing_is_learnt_are_refused(tmp_path: Path) -> None:
    data = data_of(tmp_path, [*talks(8), late(8)])

    answered = ask(tmp_path, plan_of(data, max_length=64, assistant_only_loss=True))

    assert answered.problems[0].where == "rows.jsonl:9"
    assert "lies beyond max_length=64" in answered.problems[0].what


def test_pairs_that_are_cut_to_the_same_are_told(tmp_path: Path) -> None:
    same = {**pair(1), "chosen": f"{LONG}yes", "rejected": f"{LONG}no"}
    data = data_of(tmp_path, [*map(pair, range(2, 9)), same])

    answered = ask(tmp_path, plan_of(data, method=MethodName.DPO, max_length=64))

    assert answered.problems == ()
    assert "1 train pairs are cut to the same tokens" in answered.summary


def test_assistant_only_loss_needs_conversations(tmp_path: Path) -> None:
    rows = [{"text": f"line {number}"} for number in range(9)]

    answered = ask(tmp_path, plan_of(data_of(tmp_path, rows), assistant_only_loss=True))

    assert [item.where for item in answered.problems] == ["method.assistant_only_loss"]


def test_assistant_only_loss_needs_marks_in_the_template(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    model = model_folder(tmp_path, chat_template=PLAIN_TEMPLATE)
    data = data_of(tmp_path, talks(9))

    refused = ask(tmp_path, plan_of(data, model=model, assistant_only_loss=True))
    passed = ask(tmp_path, plan_of(data, model=model))

    assert "{% generation %}" in refused.text
    assert passed.problems == ()


def test_where_trl_is_not_installed_marks_are_left_to_the_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_findings, "knows_training_templates", lambda: False)
    model = model_folder(tmp_path, chat_template=PLAIN_TEMPLATE)

    answered = ask(
        tmp_path, plan_of(data_of(tmp_path, talks(9)), model=model, assistant_only_loss=True)
    )

    assert answered.problems == ()
    assert "TRL is not installed here" in answered.summary


def test_a_template_that_trl_replaces_by_one_with_marks_passes(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    known = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text()
    model = model_folder(tmp_path, chat_template=known)

    answered = ask(
        tmp_path, plan_of(data_of(tmp_path, talks(9)), model=model, assistant_only_loss=True)
    )

    assert answered.problems == ()


def test_conversations_need_a_template(tmp_path: Path) -> None:
    model = model_folder(tmp_path)

    refused = ask(tmp_path, plan_of(data_of(tmp_path, talks(9)), model=model))
    rows = [{"text": f"line {number}"} for number in range(9)]
    passed = ask(tmp_path, plan_of(data_of(tmp_path, rows), model=model))

    assert [item.where for item in refused.problems] == ["model.chat_template"]
    assert passed.problems == ()


def test_a_row_that_the_template_refuses_is_refused_whatever_may_be_dropped(tmp_path: Path) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns here') }}"
    model = model_folder(tmp_path, chat_template=f"{refusing}{{% endif %}}{PLAIN_TEMPLATE}")
    strict = {"messages": [{"role": "system", "content": "Be brief."}, *talk(1)["messages"]]}
    data = data_of(tmp_path, [*talks(9), strict], max_bad_fraction=0.5)

    answered = ask(tmp_path, plan_of(data, model=model))

    assert answered.problems[0].where == "rows.jsonl:10"
    assert "no system turns here" in answered.problems[0].what
    assert answered.problems[-1].where == "model.chat_template"


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (ModelPlan(name_or_path="nobody/has-this-model"), "has no tokenizer.json"),
        (ModelPlan(name_or_path="not a hub id at all//"), "has no tokenizer.json"),
        (ModelPlan(name_or_path="package:not_installed"), "has no tokenizer.json"),
        (ModelPlan(name_or_path="some/model", gguf_file="a.gguf"), "inside a GGUF file"),
    ],
)
def test_without_the_tokenizer_nothing_is_guessed_and_nothing_refused(
    tmp_path: Path, model: ModelPlan, why: str
) -> None:
    data = data_of(tmp_path, [*map(pair, range(9)), pair(9, LONG)])

    answered = ask(tmp_path, plan_of(data, method=MethodName.ORPO, model=model, max_length=64))

    assert answered.problems == ()
    assert "tokens were not counted" in answered.summary
    assert why in answered.details["tokens"]["not_counted"]


def test_a_tokenizer_in_the_hub_cache_is_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    saved = Path(model_folder(tmp_path, chat_template=PLAIN_TEMPLATE).name_or_path)
    repository = tmp_path / "hub" / "models--org--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    saved.rename(repository / "snapshots" / "abc")
    # The library reads the environment once, when it is imported.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model = ModelPlan(name_or_path="org/model", init=ModelInit.PRETRAINED)

    answered = ask(tmp_path, plan_of(data_of(tmp_path, talks(9)), model=model))

    assert "tokens a row" in answered.summary


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a line of text"},
        {"text": "ends as it should<|im_end|>"},
        {"prompt": "q", "completion": "an answer"},
        {"prompt": [USER], "completion": [{"role": "assistant", "content": "It counts."}]},
        talk(1),
    ],
)
def test_tokens_are_counted_as_trl_counts_them(tmp_path: Path, row: dict[str, Any]) -> None:
    pytest.importorskip("transformers")
    model = model_folder(tmp_path, chat_template=DEFAULT_CHAT_TEMPLATE)
    tokenizer = tokenizer_of(model)

    answered = ask(tmp_path, plan_of(data_of(tmp_path, [row] * 2), model=model))

    columns = list(row.values())
    whole = columns[0] if len(columns) == 1 else columns[0] + columns[1]
    if isinstance(whole, str):
        eos = "" if whole.endswith("<|im_end|>") else "<|im_end|>"
        expected = len(tokenizer(whole + eos)["input_ids"])
    else:
        expected = len(tokenizer.apply_chat_template(whole)["input_ids"])
    assert answered.details["tokens"]["train"]["longest"] == expected


def test_a_tokenizer_trained_on_the_rows_is_the_one_the_pod_will_train(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    write_rows(tmp_path, [talk(number, "len " * number + "counts") for number in range(40)])
    data = DataPlan(path="rows.jsonl", shuffle_seed=3, max_rows=30, eval=EvalPlan(fraction=0.2))
    plan = plan_of(data)
    rows = read_data(data, MethodName.SFT, (tmp_path,))

    texts = [text for row in rows.train for text in row_texts(row)]
    here = load_tokenizer(TokenizerFiles(None, ""), plan.model, reversed(texts))
    there = _tokenizer_from_nothing(plan.model, texts)

    assert here.tokenizer.get_vocab() == there.get_vocab()
    talked = [there.apply_chat_template(row.columns["messages"]) for row in rows.train]
    longest = ask(tmp_path, plan).details["tokens"]["train"]["longest"]
    assert longest == max(len(encoded["input_ids"]) for encoded in talked)


def test_special_tokens_are_read_as_text_or_as_objects(tmp_path: Path) -> None:
    variants = [{"name": "default", "template": "{{ bos_token }}"}]
    model = model_folder(tmp_path, chat_template=variants, bos_token={"content": "<|im_end|>"})
    files = find_tokenizer(model)
    assert isinstance(files, TokenizerFiles)

    counter = load_tokenizer(files, model, ())

    assert counter.bos_id == counter.tokenizer.token_to_id("<|im_end|>")
    assert counter.template is not None
    assert counter.template.render([]).text == counter.eos_token


def test_older_tokenizers_name_their_tokens_in_a_file_of_its_own(tmp_path: Path) -> None:
    model = model_folder(tmp_path)
    folder = Path(model.name_or_path)
    (folder / "tokenizer_config.json").unlink()
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (folder / "chat_template.jinja").write_text("{{ eos_token }}")
    files = find_tokenizer(model)
    assert isinstance(files, TokenizerFiles)

    counter = load_tokenizer(files, model, ())

    assert counter.bos_id is None
    assert counter.template is not None
    assert counter.template.render([]).text == "<|im_end|>"


@given(st.dictionaries(st.integers(0, 5000), st.integers(1, 9), min_size=1))
def test_the_histogram_holds_every_row_and_the_quantiles_are_in_order(
    lengths: dict[int, int],
) -> None:
    found = token_lengths(Counter(lengths), 100)

    assert found is not None
    assert sum(count for _, count in found.bins) == found.rows == sum(lengths.values())
    assert min(lengths) <= found.median <= found.p90 <= found.p99 <= found.longest == max(lengths)
    assert found.longer_than_max == sum(n for length, n in lengths.items() if length > 100)
    assert len(found.bins) <= 12


def test_of_no_rows_there_are_no_lengths() -> None:
    assert token_lengths(Counter(), 100) is None
