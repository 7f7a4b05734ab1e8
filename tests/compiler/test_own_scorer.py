"""A scorer in a file of the user's: it rides in the script, or is refused by key, place and way."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from podproof.compiler.errors import BadConfig
from podproof.compiler.ir import PodScript
from podproof.compiler.lower import lower
from podproof.compiler.own_scorer import FUNCTIONS, IMPORTABLE, own_scorer_problems
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run, runtime_sources
from podproof.harness.artefact import artefact_problems
from podproof.harness.embedded import embedded
from podproof.harness.gates import clear
from podproof.harness.verdict import Cleared, Refused, Surroundings
from podproof.runtime.errors import Problem
from podproof.runtime.plan import ScorerName, ScorerPlan

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/own-scorer.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"^`mine/margin.py`:\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[
    0
]

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return what writes a scorer file; each of another name."""

    def written(text: str) -> Path:
        path = tmp_path / f"scorer_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text, encoding="utf-8")
        return path

    return written


def request(path: Path, *overrides: str) -> Request:
    return Request(("experiment=tiny_dpo", "scorer=own", f"scorer.file='{path}'", *overrides), None)


def script_of(path: Path, *overrides: str) -> PodScript:
    return compile_run(lower(read(request(path, *overrides))))


def problems(path: Path) -> tuple[Problem, ...]:
    with pytest.raises(BadConfig) as caught:
        read(request(path))
    return tuple(caught.value.problems)


def test_the_scorer_of_the_page_rides_in_the_script_and_scores(write: Write) -> None:
    script = script_of(write(EXAMPLE))

    with embedded(script.text) as code:
        plan = code.plan_from_json(code.PLAN_JSON).scorer
        log = [
            {"eval_loss": 1.0, "eval_rewards/margins": 1.0, "step": 1},
            {"eval_loss": 1.0, "eval_rewards/margins": 3.0, "step": 2},
        ]
        state, scores = code.replay_scores(log, plan)
    assert [score.value for score in scores] == pytest.approx([0.995, 0.9925])
    assert state.best_step == 2


def test_the_scorer_of_the_page_passes_every_fast_gate(write: Write) -> None:
    script = script_of(write(EXAMPLE))

    result = clear(script, Surroundings((ROOT,)))

    assert isinstance(result, Cleared), result


def test_a_scorer_that_breaks_a_property_is_refused_by_the_scorer_gate(write: Write) -> None:
    text = EXAMPLE.replace("-MARGIN_WEIGHT * evaluation.scale", "-MARGIN_WEIGHT")

    result = clear(script_of(write(text)), Surroundings((ROOT,)))

    assert isinstance(result, Refused)
    found = {item.where for verdict in result.verdicts for item in verdict.problems}
    assert "scorer.scale_free" in found


def test_the_text_of_the_file_counts_and_its_folder_does_not(write: Write, tmp_path: Path) -> None:
    first = script_of(write(EXAMPLE))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "scorer_0.py").write_text(EXAMPLE, encoding="utf-8")
    moved = script_of(elsewhere / "scorer_0.py")
    changed_path = tmp_path / "scorer_0.py"
    changed_path.write_text(EXAMPLE.replace("0.01", "0.02"), encoding="utf-8")
    changed = script_of(changed_path)

    assert moved.text == first.text
    assert str(tmp_path) not in first.text
    assert changed.run.plan.config_sha256 != first.run.plan.config_sha256
    assert changed.sha256 != first.sha256


def test_a_file_that_changed_after_it_was_read_changes_no_script(write: Write) -> None:
    path = write(EXAMPLE)
    script = script_of(path)

    path.write_text("gone", encoding="utf-8")

    assert artefact_problems(script) == ()


def test_every_objective_works_with_a_scorer_of_ones_own(write: Write) -> None:
    path = write(EXAMPLE)
    overrides = ("scorer.objective=reward", "trainer.save_total_limit=null")

    script = script_of(path, *overrides)

    assert script.run.plan.scorer.objective.value == "reward"


# What is refused.


def only_problem(path: Path) -> str:
    found = problems(path)
    assert len(found) == 1, found
    assert found[0].where == "scorer.file"
    assert found[0].way_out
    return found[0].what


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "No such file" in only_problem(tmp_path / "none.py")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "directory" in only_problem(tmp_path)


def test_what_is_not_python_is_refused_with_its_line(write: Write) -> None:
    assert ":2 is not Python" in only_problem(write("import math\ndef own_components(:\n"))


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.py"
    path.write_bytes(b"# \xe9\n")

    assert "is no text of Python" in only_problem(path)


@pytest.mark.parametrize("path", ["nul\0", "half \ud800", ""])
def test_what_is_no_path_is_refused(path: str) -> None:
    scorer = ScorerPlan(name=ScorerName.OWN, file=path)

    found = list(own_scorer_problems(scorer))

    assert [problem.where for problem in found] == ["scorer.file"]


def test_a_text_with_a_nul_is_refused(write: Write) -> None:
    assert "null bytes" in only_problem(write(EXAMPLE + "\0"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_file_without_one_of_the_functions_is_refused(name: str, write: Write) -> None:
    path = write(EXAMPLE.replace(f"def {name}", f"def my_{name}"))

    found = {problem.what for problem in problems(path)}

    assert f"{path} defines no function {name}" in found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("state: ScoreState, evaluation: Evaluation, plan: ScorerPlan", "evaluation: Evaluation"),
        ("def own_bound(plan: ScorerPlan)", "def own_bound(plan: ScorerPlan, more: int)"),
        ("def own_bound(plan: ScorerPlan)", "def own_bound(plan: ScorerPlan, *, more: int)"),
    ],
)
def test_a_function_that_takes_other_arguments_is_refused(old: str, new: str, write: Write) -> None:
    assert "arguments, by position" in only_problem(write(EXAMPLE.replace(old, new)))


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "import random",
        "from os import environ",
        "import numpy",
        "from podproof.runtime.callback import PodCallback",
    ],
)
def test_an_import_that_could_tell_ranks_apart_is_refused(line: str, write: Write) -> None:
    path = write(EXAMPLE.replace("from collections.abc", f"{line}\nfrom collections.abc"))

    module = line.split()[1]
    assert any(f":3 imports {module}" in problem.what for problem in problems(path))


@pytest.mark.parametrize("name", ["open", "hash", "id", "eval", "__import__"])
def test_a_built_in_that_could_tell_ranks_apart_is_refused(name: str, write: Write) -> None:
    path = write(EXAMPLE.replace("evaluation.margin or 0.0", f"{name}(plan)"))

    assert f"uses {name}" in only_problem(path)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("print('hello')", "does something when imported"),
        ("HERE = __file__", "reads __file__"),
        ("import math as m", "as another name"),
        ("class Reporter: pass", "choose another name"),
        ("def usable_loss(): pass", "is bound by"),
    ],
)
def test_a_file_that_breaks_a_rule_of_the_runtime_is_refused(
    line: str, what: str, write: Write
) -> None:
    found = problems(write(f"{EXAMPLE}\n\n{line}\n"))

    assert {problem.where for problem in found} == {"scorer.file"}
    assert any(what in f"{problem.what} {problem.way_out}" for problem in found)


def test_every_problem_of_a_file_is_told_at_once(write: Write) -> None:
    text = EXAMPLE.replace("def own_bound", "def bound").replace("state: ScoreState, ", "")

    assert len(problems(write(f"import time\n{text}"))) >= 3


def test_own_without_a_file_is_refused() -> None:
    with pytest.raises(BadConfig, match=r"scorer\.file: needs a value"):
        read(Request(("scorer=own",), None))


def test_a_file_without_own_is_refused(write: Write) -> None:
    with pytest.raises(BadConfig, match=r"scorer\.file: is not used by scorer\.name=robust"):
        read(Request(("scorer=robust", f"scorer.file='{write(EXAMPLE)}'"), None))


def test_what_ships_in_its_place_defines_what_a_file_must() -> None:
    tree = ast.parse(runtime_sources()["own_scorer"])

    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name: len(node.args.args) for name, node in functions.items()} == FUNCTIONS


def test_the_page_lists_what_may_be_imported() -> None:
    listed = {name for name in IMPORTABLE if f"`{name}`" in PAGE}

    # collections.abc is said with collections.
    assert listed == IMPORTABLE - {"collections.abc"}
