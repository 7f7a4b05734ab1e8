"""How Hypothesis is asked: always the same examples, all of them within the budget or a refusal."""

import importlib.util
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from podproof.harness.asking import HOW, asked_within, attack
from podproof.harness.budget import OverBudgetError
from podproof.harness.gates import clear
from podproof.harness.proofs import EXAMPLES, STREAMS
from podproof.harness.verdict import Outcome, Refused, Surroundings
from tests.harness.conftest import ROOTS, Tamper, script_of


def drawn() -> list[float]:
    """Return what Hypothesis draws for a check."""
    found: list[float] = []

    @attack(50)
    @given(st.floats())
    def check(value: float) -> None:
        found.append(value)

    with asked_within(60.0):
        check()
    return list(map(repr, found))  # type: ignore[arg-type]  # so that NaN equals NaN


def spin(budget_s: float) -> None:
    with asked_within(budget_s):
        while True:
            pass


def test_the_examples_do_not_hang_on_what_else_is_loaded(tmp_path: Path) -> None:
    before = drawn()
    numbers = ", ".join(f"{number}.5" for number in range(1000, 1400))
    (tmp_path / "many_numbers.py").write_text(f"NUMBERS = ({numbers})\n")
    spec = importlib.util.spec_from_file_location("many_numbers", tmp_path / "many_numbers.py")
    assert spec is not None
    sys.modules["many_numbers"] = importlib.util.module_from_spec(spec)

    after = drawn()

    del sys.modules["many_numbers"]
    assert after == before


def test_a_loop_without_end_is_cut_off() -> None:
    with pytest.raises(OverBudgetError):
        spin(0.05)


def test_beside_the_main_thread_it_is_told_at_the_end() -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            with asked_within(0.0):
                sum(range(5_000_000))  # some ticks: a timer that rang makes this clock coarse
        except OverBudgetError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert len(caught) == 1


def test_a_scorer_that_hangs_is_refused_and_told_why(tamper: Tamper) -> None:
    script = tamper(
        "    total = 0.0\n    for value in values:",
        "    total = 0.0\n    while values:\n        pass\n    for value in values:",
    )
    # Its text is not what was compiled, which would keep the gate from being asked.
    excused = script_of("experiment=tiny_sft", "gates.skip.artefact='a test'")
    script = type(script)(script.text, script.sha256, excused.run, script.modules)

    result = clear(script, Surroundings(ROOTS, budget_s=0.2))

    assert isinstance(result, Refused)
    refused = {verdict.gate: verdict for verdict in result.verdicts}
    assert refused["scorer"].problems[0].where == "scorer.budget"
    assert refused["dryrun"].outcome is Outcome.REFUSED


def test_the_verdict_tells_how_many_examples_were_asked_and_how() -> None:
    result = clear(script_of("experiment=tiny_sft"), Surroundings(ROOTS))

    said = {verdict.gate: verdict.summary for verdict in result.verdicts}
    assert f"{EXAMPLES} examples each, {HOW}" in said["scorer"]
    assert f"{STREAMS} streams with faults, {HOW}" in said["dryrun"]
