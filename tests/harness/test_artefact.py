"""The artefact gate: what makes a script's text unfit to travel, and that a sound one is not."""

from dataclasses import replace

import pytest

from podproof.compiler.ir import PodScript
from podproof.harness.artefact import artefact_problems
from tests.harness.conftest import Tamper, script_of


@pytest.mark.parametrize("name", ["tiny_sft", "tiny_dpo", "tiny_orpo", "smollm2_sft"])
def test_a_sound_script_has_no_problem(name: str) -> None:
    assert artefact_problems(script_of(f"experiment={name}")) == ()


def test_a_syntax_error_is_refused_with_its_line(tamper: Tamper) -> None:
    script = tamper("def main(plan_json: str,", "def main(plan_json str,")

    problems = artefact_problems(script)

    assert "is not Python" in problems[0].what
    assert problems[0].where.startswith("pod_script.py:")


def test_an_undefined_name_is_refused_by_name(tamper: Tamper) -> None:
    script = tamper(
        "self.stop = self.heard = StopRequest()", "self.stop = self.heard = StopRequst()"
    )

    assert any("StopRequst" in problem.what for problem in artefact_problems(script))


def test_an_import_that_is_not_on_the_pod_is_refused(tamper: Tamper) -> None:
    script = tamper(
        "    from transformers import TrainerCallback\n",
        "    from axolotl import X as TrainerCallback\n",
    )

    assert any("imports axolotl" in problem.what for problem in artefact_problems(script))


def test_an_import_of_our_own_package_is_refused(tamper: Tamper) -> None:
    script = tamper(
        "    from transformers import TrainerCallback\n",
        "    from podproof.x import TrainerCallback\n",
    )

    assert any("imports podproof" in problem.what for problem in artefact_problems(script))


def test_a_heavy_import_at_the_top_is_refused(tamper: Tamper) -> None:
    script = tamper("\nimport argparse\n", "\nimport torch\nimport argparse\n")

    assert any("imports torch at the top" in problem.what for problem in artefact_problems(script))


def test_a_statement_that_runs_at_import_is_refused(tamper: Tamper) -> None:
    script = tamper(
        '\nif __name__ == "__main__":\n', '\nprint("hello")\nif __name__ == "__main__":\n'
    )

    assert any("does something" in problem.what for problem in artefact_problems(script))


def test_bytes_that_no_compilation_gives_are_refused(tamper: Tamper) -> None:
    script = tamper("FLUSH_SECONDS = 30.0", "FLUSH_SECONDS = 31.0")

    assert any("gives other bytes" in problem.what for problem in artefact_problems(script))


def test_a_hash_that_does_not_fit_is_refused(sound: PodScript) -> None:
    script = replace(sound, sha256="0" * 64)

    assert any("on record" in problem.what for problem in artefact_problems(script))


def test_another_plan_than_the_compiled_one_is_refused(tamper: Tamper) -> None:
    script = tamper('"name": "tiny-sft",', '"name": "tiny-sfx",')

    assert any(problem.where == "PLAN_JSON" for problem in artefact_problems(script))


def test_metadata_with_another_pin_is_refused(tamper: Tamper) -> None:
    script = tamper('#   "trl==1.16.0",', '#   "trl==1.15.0",')

    assert any("names other packages" in problem.what for problem in artefact_problems(script))


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "a" * 34,
        "rpa_" + "B" * 40,
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "ghp_" + "c" * 36,
        "sk-" + "d" * 40,
    ],
)
def test_a_credential_in_the_config_is_refused_without_being_shown(secret: str) -> None:
    script = script_of("experiment=tiny_sft", f"model.revision={secret}")

    problems = artefact_problems(script)

    found = {problem.where for problem in problems if "holds what looks like" in problem.what}
    assert found == {"model.revision"}
    assert secret not in "".join(map(str, problems))


def test_a_credential_among_the_arguments_is_found_by_the_key_that_was_written() -> None:
    script = script_of("experiment=tiny_sft", f"trainer.extra.run_name=ghp_{'c' * 36}")

    assert {problem.where for problem in artefact_problems(script)} == {"trainer.extra.run_name"}


def test_a_credential_in_the_program_is_found_by_its_line(tamper: Tamper) -> None:
    script = tamper("FLUSH_SECONDS = 30.0", f"FLUSH_SECONDS = 'ghp_{'c' * 36}'")

    found = [item.where for item in artefact_problems(script) if "looks like" in item.what]
    assert [where.partition(":")[0] for where in found] == ["pod_script.py"]


@pytest.mark.parametrize(
    "asked",
    [("predictions=text",), ("predictions=json", "+predictions.json_schema.type=object")],
    ids=["text", "json"],
)
def test_a_script_with_predictions_imports_only_what_it_asks_for(asked: tuple[str, ...]) -> None:
    assert artefact_problems(script_of("experiment=tiny_sft", *asked)) == ()
