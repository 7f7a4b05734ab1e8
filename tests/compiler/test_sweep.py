"""A sweep: Hydra's own multirun, with every job's config read and checked like any other."""

import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from podproof.compiler.errors import BadConfig
from podproof.compiler.read import Request, sweep
from podproof.compiler.schema import Config


def swept(folder: Path, *overrides: str) -> list[Config]:
    """Run a sweep whose task does nothing, and return the configs it was given."""
    configs: list[Config] = []
    sweep(Request(overrides), sweep_dir=folder, task=configs.append)
    return configs


def test_every_job_of_a_sweep_is_run_with_its_own_checked_config(tmp_path: Path) -> None:
    configs = swept(
        tmp_path, "experiment=tiny_sft,tiny_dpo", "trainer.learning_rate=1e-3,3e-3", "seed=1"
    )

    told = [(config.method.name.value, config.trainer.learning_rate) for config in configs]
    assert told == [("sft", 1e-3), ("sft", 3e-3), ("dpo", 1e-3), ("dpo", 3e-3)]
    assert {config.seed for config in configs} == {1}


def test_the_objective_is_what_the_task_returns_and_the_folder_is_the_one_asked_for(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "it's a sweep"

    sweep(Request(("seed=1,2",)), sweep_dir=folder, task=lambda config: float(config.seed))

    assert (folder / "multirun.yaml").is_file()


def test_a_sweep_leaves_the_arguments_of_the_process_and_hydra_as_they_were(tmp_path: Path) -> None:
    arguments = list(sys.argv)

    swept(tmp_path, "seed=1,2")

    assert sys.argv == arguments
    assert not GlobalHydra.instance().is_initialized()


def test_a_job_with_a_bad_config_is_refused_like_a_single_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadConfig) as refused:
        swept(tmp_path, "trainer.learning_rate=1e-3,-1")

    assert [problem.where for problem in refused.value.problems] == ["trainer.learning_rate"]
    assert "Traceback" not in "".join(capsys.readouterr())
    assert not GlobalHydra.instance().is_initialized()


def test_a_slip_in_a_key_is_refused_before_any_job_runs(tmp_path: Path) -> None:
    configs: list[Config] = []
    request = Request(("trainer.lr=1e-3,2e-3", "trainer.weight_deacy=0,1"))

    with pytest.raises(BadConfig) as refused:
        sweep(request, sweep_dir=tmp_path, task=configs.append)

    wheres = {problem.where for problem in refused.value.problems}
    assert wheres == {"trainer.lr", "trainer.weight_deacy"}
    assert configs == []


def test_a_choice_that_does_not_exist_is_answered_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(BadConfig) as refused:
        swept(tmp_path, "experiment=tiny_sft,tiny_stf")

    (problem,) = refused.value.problems
    assert problem.what == "there is no 'tiny_stf'"
    assert "tiny_sft" in problem.way_out


def test_what_the_task_raises_comes_out_as_it_is(tmp_path: Path) -> None:
    def broken(config: Config) -> float:
        raise ZeroDivisionError(config.name)

    with pytest.raises(ZeroDivisionError):
        sweep(Request(("seed=1,2",)), sweep_dir=tmp_path, task=broken)


def test_a_folder_of_ones_own_is_swept_too(tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "experiment"
    mine.mkdir(parents=True)
    (mine / "x.yaml").write_text("# @package _global_\nname: mine\n")
    configs: list[Config] = []
    request = Request(("experiment=x", "seed=1,2"), tmp_path / "mine")

    sweep(request, sweep_dir=tmp_path / "out", task=configs.append)

    assert [(config.name, config.seed) for config in configs] == [("mine", 1), ("mine", 2)]
