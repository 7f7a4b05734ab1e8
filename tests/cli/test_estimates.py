"""Estimates on the command line: kept with a launch, learnt from, and never in the way."""

from pathlib import Path

import pytest

from podproof.cli.launching import _record_estimate
from podproof.cli.remembered import past_runs
from podproof.compiler.ir import Provider
from podproof.compiler.lower import lower
from podproof.compiler.read import Request, read
from podproof.compiler.script import compile_run
from podproof.harness.gates import clear
from podproof.harness.verdict import Cleared, Surroundings
from podproof.monitor.records import LaunchRecord, LaunchStatus
from podproof.monitor.store import open_store
from podproof.runtime.events import Event, EventKind
from podproof.runtime.plan import AdapterKind

ROOTS = Surroundings((Path(__file__).parents[2],))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PODPROOF_HOME", str(tmp_path))
    return tmp_path


def trained(run_id: str) -> list[Event]:
    """Return a start on a processor, and a log a second with 1,000 tokens more each."""
    start = Event(
        f"{run_id}-1-0", run_id, 1, 0, EventKind.STARTED, 0.0, None, None, {"device": "cpu"}
    )
    logs = [
        Event(
            f"{run_id}-1-{seq}",
            run_id,
            1,
            seq,
            EventKind.TRAIN_LOG,
            float(seq),
            seq,
            None,
            {"num_tokens": 1000.0 * seq},
        )
        for seq in range(1, 6)
    ]
    return [start, *logs]


def test_what_the_memory_gate_said_is_kept_with_a_launch_and_learnt_from(home: Path) -> None:
    script = compile_run(lower(read(Request(("experiment=tiny_sft", "gates=static")))))
    cleared = clear(script, ROOTS)
    assert isinstance(cleared, Cleared)
    launch = LaunchRecord(
        run_id="r",
        name="tiny-sft",
        provider=Provider.LOCAL,
        status=LaunchStatus.INTENDED,
        pod_id=None,
        script_sha256=script.sha256,
        config_sha256=script.run.plan.config_sha256,
        intended_unix_s=0.0,
    )

    with open_store(home / "podproof.db") as store:
        _record_estimate(cleared, store, "r")
        store.intend_launch(launch)
        store.ingest(trained("r"))

    (run,) = past_runs()
    details = next(item.details for item in cleared.verdicts if item.gate == "memory")
    assert (run.device, run.adapter) == ("cpu", AdapterKind.NONE)
    assert run.flops_per_s == 1000 * details["flops_per_token"]


def test_without_a_store_there_is_nothing_to_learn_from(home: Path) -> None:
    assert past_runs() == ()
    assert not (home / "podproof.db").exists()


def test_a_store_that_cannot_be_read_teaches_nothing_and_stops_nothing(home: Path) -> None:
    (home / "podproof.db").write_text("no database at all, and long enough to be looked at" * 40)

    assert past_runs() == ()
