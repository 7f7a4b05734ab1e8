"""Reading: from what a person types to a typed Config, or to everything that is wrong with it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from podproof.compiler.errors import BadConfig
from podproof.compiler.read import Request, config_from, read
from podproof.compiler.schema import Config, DpoMethod
from podproof.runtime.plan import AdapterKind
from tests.compiler.conftest import (
    changed,
    composed_config,
    read_config,
    refusal,
    with_value,
)

ONLY_HERE = "what-only-this-machine-knows"


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """Register a resolver called `spy` and return the list of what it will be asked."""
    questions: list[str] = []
    OmegaConf.register_new_resolver("spy", questions.append)
    yield questions
    OmegaConf.clear_resolver("spy")


def overlay(folder: Path, name: str, text: str) -> Path:
    """Write an experiment into a user's own config folder and return that folder."""
    path = folder / "experiment" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# @package _global_\n{text}", encoding="utf-8")
    return folder


def problems_of(composed: DictConfig) -> dict[str, str]:
    with pytest.raises(BadConfig) as refused:
        config_from(composed)
    return {problem.where: problem.what for problem in refused.value.problems}


# What is typed arrives.


def test_overrides_are_typed_as_hydra_users_type_them() -> None:
    config = read_config(
        "experiment=tiny_dpo",
        "adapter=lora",
        "trainer.learning_rate=1e-4",
        "method.beta=0.2",
        "++trainer.warmup_steps=3",
        "adapter.target_modules=[q_proj,'v_proj']",
        "model.chat_template='it\\'s {{ messages }}, \"all\" of them'",
        "model.revision=null",
    )

    assert isinstance(config.method, DpoMethod)
    assert (config.trainer.learning_rate, config.method.beta) == (1e-4, 0.2)
    assert config.trainer.warmup_steps == 3.0
    assert config.adapter.kind is AdapterKind.LORA
    assert config.adapter.target_modules == ("q_proj", "v_proj")
    assert config.model.chat_template == 'it\'s {{ messages }}, "all" of them'
    assert config.model.revision is None


def test_mappings_that_take_any_key_take_it_by_name_with_a_plus_and_whole() -> None:
    config = read_config(
        "pod.env.TOKENIZERS='on'",
        "+pod.env.MORE=text",
        "pod.requirements={flash-attn: 2.8.3}",
        "trainer.extra.logging_first_step=true",
        "data.columns.prompt=question",
        "gates.skip.scorer='compared by hand'",
    )

    assert config.pod.env == {"TOKENIZERS": "on", "MORE": "text"}
    assert config.pod.requirements == {"flash-attn": "2.8.3"}
    assert config.trainer.extra == {"logging_first_step": True}
    assert config.data.columns == {"prompt": "question"}
    assert config.gates.skip == {"scorer": "compared by hand"}


def test_reading_twice_gives_equal_configs() -> None:
    request = Request(("experiment=tiny_orpo", "seed=7"))

    assert read(request) == read(request)


def test_hydra_is_left_as_it_was_found_after_a_success_and_after_a_failure() -> None:
    read_config()
    after_success = GlobalHydra.instance().is_initialized()
    refusal("trainer.learning_rate=fast")
    refusal("experiment=nothing")
    after_failure = GlobalHydra.instance().is_initialized()

    assert (after_success, after_failure) == (False, False)


# A folder of one's own.


def test_a_folder_of_ones_own_starts_from_our_experiments(
    tmp_path: Path, configs: Mapping[str, Config]
) -> None:
    mine = overlay(
        tmp_path, "mine", "defaults:\n  - tiny_dpo\n  - _self_\nname: mine\nmethod:\n  beta: 0.3\n"
    )

    config = read_config("experiment=mine", "seed=1", config_dir=mine)

    assert config == changed(configs["dpo"], {"name": "mine", "method.beta": 0.3, "seed": 1})


def test_a_folder_of_ones_own_may_bring_a_group_choice_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "small.yaml").write_text("name_or_path: me/small\ninit: pretrained\n")

    config = read_config("experiment=tiny_sft", "model=small", config_dir=tmp_path)

    assert config.model.name_or_path == "me/small"


@pytest.mark.parametrize("name", ["it's mine", "a ${b}", "[x]=y, {z: 1}", 'quoted "so"', "ünïcode"])
def test_a_folder_of_ones_own_may_have_any_name(tmp_path: Path, name: str) -> None:
    mine = overlay(tmp_path / name, "mine", "name: found\n")

    assert read_config("experiment=mine", config_dir=mine).name == "found"


def test_a_folder_that_is_not_there_is_refused_by_the_option_that_named_it(tmp_path: Path) -> None:
    problems = refusal(config_dir=tmp_path / "absent")

    assert list(problems) == ["--config-dir"]


@pytest.mark.parametrize(
    "content",
    [b"data: [\n", b"- a list\n", b"\xff\xfe\n", b"data:\n  path: '${'\n", b"a: b: c\n"],
    ids=["unclosed", "list", "not-utf8", "half-an-interpolation", "two-colons"],
)
def test_a_broken_yaml_file_is_a_problem_and_not_a_traceback(
    tmp_path: Path, content: bytes
) -> None:
    mine = overlay(tmp_path, "mine", "")
    (mine / "experiment" / "mine.yaml").write_bytes(b"# @package _global_\n" + content)

    problems = refusal("experiment=mine", config_dir=mine)

    assert all(problem.what for problem in problems.values())


# What is wrong is told, all of it, at once.


def test_every_kind_of_problem_is_told_at_once(tmp_path: Path) -> None:
    mine = overlay(
        tmp_path,
        "mine",
        "defaults:\n  - tiny_sft\n  - _self_\n"
        "trainer:\n  warmup_ratio: 0.1\n  eval_steps: often\n"
        "traner:\n  optim: adamw_torch\n"
        "model:\n  revision: ${nowhere}\n",
    )

    problems = refusal(
        "experiment=mine",
        "trainer.lr=1e-4",
        "trainer.weight_decay=-1",
        "name='Not A Name'",
        "data.max_rows='many'",
        "model.dtype=???",
        "unclosed='",
        config_dir=mine,
    )

    assert set(problems) == {
        "trainer.warmup_ratio",
        "trainer.eval_steps",
        "traner",
        "model.dtype",
        "model.revision",
        "trainer.lr",
        "trainer.weight_decay",
        "name",
        "data.max_rows",
        "unclosed='",
    }


def test_an_unknown_key_typed_or_written_is_answered_with_the_nearest(tmp_path: Path) -> None:
    mine = overlay(tmp_path, "mine", "trainer:\n  evaluation_strategy: steps\n")

    problems = refusal("experiment=mine", "trainer.learnin_rate=1", config_dir=mine)

    assert problems["trainer.evaluation_strategy"].way_out == "did you mean trainer.eval_strategy?"
    assert problems["trainer.learnin_rate"].way_out == "did you mean trainer.learning_rate?"


def test_a_field_of_another_method_is_refused_with_the_methods_that_have_it() -> None:
    problems = refusal("experiment=tiny_sft", "method.beta=0.1")

    assert problems["method.beta"].way_out == (
        "method sft has no such field; it belongs to dpo and orpo"
    )


def test_an_unknown_experiment_is_answered_with_the_nearest_and_all_and_other_slips() -> None:
    problems = refusal("experiment=tiny_stf", "trainer.lr=1", "method.beta=0.1")

    assert set(problems) == {"experiment", "trainer.lr"}
    assert problems["experiment"].what == "there is no 'tiny_stf'"
    assert problems["experiment"].way_out.startswith("did you mean tiny_sft? the choices are ")
    assert "smollm2_sft" in problems["experiment"].way_out


@pytest.mark.parametrize("choice", ["model=nope", "trainer=null", "scorer=3"])
def test_a_group_takes_the_name_of_a_config_and_nothing_else(choice: str) -> None:
    assert len(refusal(choice)) == 1


def test_a_sweep_is_refused_where_one_run_is_asked_for() -> None:
    problems = refusal("trainer.learning_rate=1e-3,2e-3")

    assert "--multirun" in problems["config"].what


def test_an_override_without_a_key_is_refused_as_it_stands() -> None:
    assert set(refusal("=3", "just-a-word")) == {"=3", "just-a-word"}


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("trainer.learning_rate", "fast", "must be a number, got 'fast'"),
        ("trainer.learning_rate", True, "must be a number, got True"),
        ("trainer.max_steps", 1.5, "must be a whole number, got 1.5"),
        ("trainer.bf16", "yes", "must be true or false, got 'yes'"),
        ("trainer.eval_strategy", "never", "must be one of steps, epoch, no, got 'never'"),
        ("model.name_or_path", 3, "must be text, got 3"),
        ("model.revision", 3, "must be text or null, got 3"),
        ("adapter.target_modules", "all", "must be a list, got 'all'"),
        ("adapter.target_modules", [1], "must be text, got 1"),
        ("pod.env", ["A=1"], "must be a mapping, got ['A=1']"),
        ("data.eval", None, "must be an object, got NoneType"),
        ("scorer", 3, "must be an object, got int"),
        ("method.name", "ppo", "must be one of sft, dpo, orpo, got 'ppo'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_key(
    composed: DictConfig, key: str, value: object, what: str
) -> None:
    assert problems_of(with_value(composed, key, value))[key] == what


def test_one_wrong_type_is_one_problem(composed: DictConfig) -> None:
    wrong = with_value(with_value(composed, "trainer", None), "data.eval.fraction", "half")

    assert set(problems_of(wrong)) == {"trainer", "data.eval.fraction"}


@pytest.mark.parametrize("key", ["model.dtype", "method.packing_strategy", "trainer.eval_steps"])
def test_a_value_that_must_be_given_is_asked_for_once(composed: DictConfig, key: str) -> None:
    assert problems_of(with_value(composed, key, "???")) == {key: "needs a value"}


@pytest.mark.parametrize("key", ["seed", "trainer.learning_rate", "trainer.eval_steps"])
@pytest.mark.parametrize("digits", [400, 5000])
def test_a_number_beyond_any_is_refused_and_not_a_traceback(key: str, digits: int) -> None:
    problems = refusal(f"{key}={'9' * digits}")

    assert len(problems) == 1


# Interpolation: other keys, yes; this machine, no.


def test_a_value_may_be_made_from_other_keys(composed: DictConfig) -> None:
    wanted = with_value(composed, "data.path", "${name}: ${model.config.hidden_size}.jsonl")
    wanted = with_value(wanted, "trainer.save_steps", "${trainer.eval_steps}")

    config = config_from(wanted)

    assert config.data.path == "tiny-sft: 128.jsonl"
    assert config.trainer.save_steps == config.trainer.eval_steps


@pytest.mark.parametrize(
    ("written", "arrives"),
    [
        (r"\${oc.env:HOME}", "${oc.env:HOME}"),
        (r"a \${name} b", "a ${name} b"),
        (r"\\\${oc.env:HOME}", r"\${oc.env:HOME}"),
        ("$HOME $(id) {{ x }} $", "$HOME $(id) {{ x }} $"),
    ],
)
def test_an_escaped_interpolation_arrives_as_text(
    composed: DictConfig, written: str, arrives: str
) -> None:
    config: Config = config_from(with_value(composed, "model.chat_template", written))

    assert config.model.chat_template == arrives


RESOLVERS = [
    "${spy:x}",
    "before ${spy:x} after",
    "${ spy : x }",
    r"\\${spy:x}",
    r"\${name} ${spy:x}",
    "${${name}:x}",
    "${model.${spy:x}}",
    "${oc.select:x,${spy:x}}",
    "${spy:'}'}",
]


@pytest.mark.parametrize("text", RESOLVERS)
@pytest.mark.parametrize(
    "key", ["data.path", "trainer.extra.deep.er", "adapter.target_modules", "method.loss_type"]
)
def test_a_resolver_is_refused_by_key_and_never_asked(
    composed: DictConfig, asked: list[str], key: str, text: str
) -> None:
    is_list = key == "adapter.target_modules"
    wanted = with_value(composed, key, ["q_proj", text] if is_list else text)
    wanted = with_value(wanted, "name", f"${{{key}}}")

    problems = problems_of(wanted)

    assert list(problems) == [f"{key}[1]" if is_list else key]
    assert "asks a resolver" in problems[key + ("[1]" if is_list else "")]
    assert asked == []


def test_the_environment_is_not_told_in_the_refusal(
    composed: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODPROOF_TEST_SECRET", ONLY_HERE)

    problems = problems_of(with_value(composed, "data.path", "${oc.env:PODPROOF_TEST_SECRET}"))

    assert set(problems) == {"data.path"}
    assert ONLY_HERE not in str(problems)


def test_a_resolver_in_a_key_is_a_key_and_nothing_more(
    composed: DictConfig, asked: list[str]
) -> None:
    columns = config_from(with_value(composed, "data.columns", {"${spy:x}": "question"}))

    assert columns.data.columns == {"${spy:x}": "question"}
    assert asked == []


def test_a_resolver_does_not_hide_the_other_problems(composed: DictConfig) -> None:
    wanted = with_value(composed, "data.path", "${oc.env:HOME}")
    wanted = with_value(wanted, "trainer.learning_rate", -1.0)
    wanted = with_value(wanted, "trainer.eval_steps", "often")

    problems = problems_of(wanted)

    assert set(problems) == {"data.path", "trainer.learning_rate", "trainer.eval_steps"}


def test_a_resolver_does_not_choose_a_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODPROOF_TEST_MODEL", "smollm2_135m")
    mine = overlay(
        tmp_path, "mine", "defaults:\n  - override /model: ${oc.env:PODPROOF_TEST_MODEL}\n"
    )

    typed = refusal("model=${oc.env:PODPROOF_TEST_MODEL}")
    written = refusal("experiment=mine", config_dir=mine)

    assert set(typed) == {"model"}
    assert set(written) == {"experiment/mine.yaml: defaults"}


@pytest.mark.parametrize("text", ["${nowhere}", "${name", "${", "${data.path}", "${a b}"])
def test_an_interpolation_that_leads_nowhere_is_refused_by_key(text: str) -> None:
    problems = refusal(f"data.path='{text}'")

    assert set(problems) == {"data.path"}


def test_the_composed_config_is_left_as_it_was() -> None:
    composed = composed_config("experiment=tiny_sft")
    before = OmegaConf.to_yaml(composed)

    config_from(composed)

    assert OmegaConf.to_yaml(composed) == before
