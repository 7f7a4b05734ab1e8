"""What is seen of a script that is not ours, whatever its style."""

import pytest

from podproof.compiler.anatomy import TOP_LEVEL, anatomy_of, sections_of
from podproof.compiler.changes import Change, Risk, Verb
from podproof.compiler.diff import diff
from podproof.compiler.emitted import emitted_by, variables_read
from podproof.compiler.errors import BadScript
from podproof.compiler.sides import side_of_text


def changes(before: str, after: str) -> dict[str, Change]:
    difference = diff(side_of_text(before, "before"), side_of_text(after, "after"))
    return {item.name: item for item in difference.changes}


def emitted(text: str) -> set[str]:
    return {field.name for field in emitted_by(anatomy_of(text))}


CALLBACK = """
class Metrics(TrainerCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        send(logs)
"""


# Definitions.


def test_definitions_below_an_if_or_a_try_are_found() -> None:
    text = "try:\n    import a\nexcept ImportError:\n    def a(): ...\nif a:\n    class B: ...\n"

    anatomy = anatomy_of(text)

    assert "a" in anatomy.functions
    assert "B" in anatomy.classes


def test_a_definition_is_no_statement_of_the_top_level() -> None:
    one = "if True:\n    def f(): return 1\n"

    assert list(changes(one, one.replace("1", "2"))) == ["f"]


def test_what_a_script_does_at_its_top_level_is_compared() -> None:
    change = changes("trainer.train()\n", "trainer.train()\nupload()\n")[TOP_LEVEL]

    assert change.detail == "does more: 1 statement added, 0 removed; calls upload"


def test_annotations_and_docstrings_are_no_change() -> None:
    one = 'def f(a, b=1):\n    "What it does."\n    return a + b\n'
    other = "def f(a: int, b: int = 1) -> int:\n    return a + b\n"

    assert {name for name in changes(one, other) if name != "script"} == set()


def test_a_script_of_strangers_has_no_sections() -> None:
    assert sections_of("# ---------- not a module\nx = 1\n") == {}


@pytest.mark.parametrize("text", ["def (", "x = \0", "\ud800"])
def test_what_is_not_python_is_refused(text: str) -> None:
    with pytest.raises(BadScript, match="is not Python"):
        anatomy_of(text)


# The callback.


def test_an_async_hook_is_a_hook() -> None:
    added = CALLBACK + "    async def on_save(self, args, state, control, **kwargs): ...\n"

    assert "a new hook" in changes(CALLBACK, added)["Metrics.on_save"].detail


def test_a_hook_that_goes_is_critical() -> None:
    without = "class Metrics(TrainerCallback):\n    pass\n"

    change = changes(CALLBACK, without)["Metrics.on_log"]

    assert (change.verb, change.risk) == (Verb.REMOVED, Risk.CRITICAL)


def test_a_callback_that_goes_is_critical() -> None:
    assert changes(CALLBACK, "")["Metrics"].risk is Risk.CRITICAL


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a, b", "a", "b is gone"),
        ("a, b=1", "a, b", "b must be given"),
        ("a", "a, b", "b must be given"),
        ("a, b", "b, a", "b, a take other places"),
        ("a, b", "a, *, b", "a take other places"),
        ("a=1", "b=2, a=1", "b, a take other places"),
        ("*, a", "*, b=1, a", ""),
        ("a", "a, b=None", ""),
        ("a, **kwargs", "a", "**kwargs is gone"),
    ],
)
def test_a_constructor_that_old_calls_do_not_suit_is_critical(
    old: str, new: str, words: str
) -> None:
    before, after = (
        f"{CALLBACK}    def __init__(self, {parameters}): pass\n" for parameters in (old, new)
    )

    change = changes(before, after)["Metrics.__init__ parameters"]

    assert words in change.detail
    assert change.needs_approval is bool(words)


def test_a_list_that_grows_at_every_log_is_told() -> None:
    grown = CALLBACK.replace("send(logs)", "send(logs)\n        self.seen.append(logs)")
    after = f"{grown}    def __init__(self):\n        self.seen = []\n"

    change = changes(CALLBACK, after)["Metrics.seen"]

    assert change.detail == "grows in on_log without a bound"
    assert change.needs_approval


# What it writes and reads.


def test_fields_put_into_a_variable_one_by_one_are_found() -> None:
    text = """
def report(job):
    row = {"status": "running"}
    row["metrics"] = {"loss": 1.0, **({"best": 2.0} if job else {})}
    row.update({"progress": 0.5})
    client.table("jobs").upsert(row).execute()
"""

    assert emitted(text) == {
        "jobs.status",
        "jobs.metrics",
        "jobs.metrics.loss",
        "jobs.metrics.best",
        "jobs.progress",
    }


def test_rows_in_a_list_and_posted_json_are_found() -> None:
    text = """
def report():
    client.from_("points").insert([{"step": 1}]).execute()
    requests.post(URL, json={"job_id": 1, "metrics": [{"loss": 2}]})
"""

    assert emitted(text) == {
        "points.step",
        "JSON.job_id",
        "JSON.metrics",
        "JSON.metrics.loss",
    }


def test_a_variable_that_refers_to_itself_ends() -> None:
    assert emitted("def f():\n    a = a\n    client.table('t').insert(a)\n") == set()


def test_every_way_to_read_a_variable_is_found() -> None:
    text = """
import os
NAME = "FOURTH"
a = os.environ["FIRST"]
b = os.environ.get("SECOND", "x")
c = os.getenv("THIRD")
d = os.environ[NAME]
os.environ["SET"] = "1"
"""

    read = variables_read(anatomy_of(text))

    assert {name: item.is_required for name, item in read.items()} == {
        "FIRST": True,
        "SECOND": False,
        "THIRD": False,
        "FOURTH": True,
    }


# Arguments.


def test_arguments_of_config_classes_are_compared_by_name() -> None:
    before = "args = SFTConfig(learning_rate=2e-4, logging_steps=10, metric_for_best_model='loss')"
    after = "args = SFTConfig(learning_rate=1e-4, logging_steps=1, metric_for_best_model='score')"

    found = changes(before, after)

    assert {name: change.risk for name, change in found.items()} == {
        "arguments.SFTConfig.learning_rate": Risk.MEDIUM,
        "arguments.SFTConfig.logging_steps": Risk.LOW,
        "arguments.SFTConfig.metric_for_best_model": Risk.CRITICAL,
    }


def test_what_arguments_mean_is_told_where_they_are_written_out() -> None:
    text = "SFTConfig(per_device_train_batch_size=4, gradient_accumulation_steps={})"

    sides = (side_of_text(text.format(steps), "a side") for steps in (8, 4))

    (quantity,) = diff(*sides).quantities
    assert (quantity.name, quantity.before, quantity.after) == (
        "effective batch",
        "32 sequences per step and GPU",
        "16 sequences per step and GPU",
    )


def test_fields_that_a_function_or_a_mapping_of_the_script_makes_are_found() -> None:
    text = """
class Body(Mapping):
    def __getitem__(self, key):
        return made()[key]

def made():
    return {"score": 1.0}

def stated():
    body = {"step": 1}
    return body

def report(send):
    send(EventKind.EVALUATION, Body())
    send(EventKind.STARTED, stated())
"""

    assert emitted(text) == {"event evaluation.score", "event started.step"}
