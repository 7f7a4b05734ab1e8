"""The gates together: all are asked, a refusal is a Refused, a skip needs and shows its reason."""

from pathlib import Path

import pytest

from podproof.compiler.errors import BadConfig
from podproof.compiler.ir import PodScript
from podproof.compiler.schema import GATE_IDS
from podproof.harness.gates import GATES, clear, refused_config
from podproof.harness.verdict import Cleared, Level, Outcome, Refused, Surroundings
from podproof.runtime.errors import Problem
from tests.harness.conftest import AT_HAND, Tamper, script_of


def outcomes(result: Cleared | Refused) -> dict[str, Outcome]:
    return {verdict.gate: verdict.outcome for verdict in result.verdicts}


@pytest.mark.parametrize("name", ["tiny_sft", "tiny_dpo", "tiny_orpo", "smollm2_sft"])
def test_the_shipped_experiments_are_cleared(name: str) -> None:
    result = clear(script_of(f"experiment={name}"), AT_HAND)

    assert isinstance(result, Cleared)
    asked = [verdict for verdict in result.verdicts if verdict.level is not Level.FULL]
    assert {verdict.outcome for verdict in asked} == {Outcome.PASSED}


@pytest.mark.parametrize(
    "name", ["llama3_8b_qlora_sft", "qwen3_8b_dpo", "mistral_7b_orpo", "qwen3_8b_full_sft"]
)
def test_the_rented_experiments_are_cleared_once_a_volume_is_named(name: str) -> None:
    result = clear(script_of(f"experiment={name}", "pod.network_volume=abc123"), AT_HAND)

    assert isinstance(result, Cleared)


def test_one_refusal_refuses_the_script_and_the_others_are_still_asked(tamper: Tamper) -> None:
    script = tamper("FLUSH_SECONDS = 30.0", "FLUSH_SECONDS = 31.0")

    result = clear(script, AT_HAND)

    assert isinstance(result, Refused)
    assert outcomes(result)["artefact"] is Outcome.REFUSED
    assert outcomes(result)["data"] is Outcome.PASSED


def test_code_of_a_refused_text_is_never_run(tamper: Tamper) -> None:
    script = tamper("FLUSH_SECONDS = 30.0", "FLUSH_SECONDS = 31.0")

    result = clear(script, AT_HAND)

    assert outcomes(result)["scorer"] is Outcome.SKIPPED
    assert outcomes(result)["dryrun"] is Outcome.SKIPPED


def test_a_missing_data_file_is_refused(tmp_path: Path, sound: PodScript) -> None:
    result = clear(sound, Surroundings((tmp_path,)))

    refused = next(verdict for verdict in result.verdicts if verdict.gate == "data")
    assert refused.outcome is Outcome.REFUSED
    assert "sft.jsonl" in str(refused.problems[0])


def test_a_row_that_cannot_be_trained_on_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n{broken\n')
    script = script_of("experiment=tiny_sft", "data.path=rows.jsonl")

    result = clear(script, Surroundings((tmp_path,)))

    refused = next(verdict for verdict in result.verdicts if verdict.gate == "data")
    assert any("rows.jsonl:2" in str(problem) for problem in refused.problems)


def test_the_original_scorer_is_refused_until_somebody_says_why() -> None:
    script = script_of("experiment=tiny_sft", "scorer=seed_v1")
    reasons = ("gates.skip.scorer='old runs'", "gates.skip.dryrun='it overflows'")
    excused = script_of("experiment=tiny_sft", "scorer=seed_v1", *reasons)

    assert isinstance(clear(script, AT_HAND), Refused)
    result = clear(excused, AT_HAND)
    assert isinstance(result, Cleared)
    skipped = next(verdict for verdict in result.verdicts if verdict.gate == "scorer")
    assert skipped.summary == "skipped by the config: old runs"


def test_the_static_level_runs_nothing_of_the_script() -> None:
    result = clear(script_of("experiment=tiny_sft", "gates=static"), AT_HAND)

    assert isinstance(result, Cleared)
    assert outcomes(result)["scorer"] is Outcome.SKIPPED


def test_a_script_too_large_for_the_wire_is_refused() -> None:
    # Text that does not compress: what counts is the payload, not the script.
    import hashlib

    noise = "".join(hashlib.sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(1200))
    script = script_of("experiment=tiny_sft", f"model.chat_template='{noise}'")

    result = clear(script, AT_HAND)

    assert outcomes(result)["size"] is Outcome.REFUSED


def test_a_gate_that_breaks_refuses(sound: PodScript) -> None:
    result = clear(sound, Surroundings((None,)))  # type: ignore[arg-type]  # what no caller may pass

    refused = next(verdict for verdict in result.verdicts if verdict.gate == "data")
    assert refused.outcome is Outcome.REFUSED
    assert "TypeError" in refused.problems[0].what


def test_a_config_that_never_became_a_script_is_a_refusal_of_the_config_gate() -> None:
    result = refused_config(BadConfig(Problem("trainer.lr", "no such key")))

    assert isinstance(result, Refused)
    assert result.verdicts[0].gate == "config"


def test_the_config_knows_every_gate_by_name() -> None:
    assert ("config", *(gate.gate_id for gate in GATES)) == GATE_IDS


def test_every_gate_is_told_before_it_is_asked(sound: PodScript) -> None:
    told: list[str] = []

    clear(sound, AT_HAND, on_gate=told.append)

    assert told == [gate.gate_id for gate in GATES]
