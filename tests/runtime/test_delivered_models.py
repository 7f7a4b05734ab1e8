"""What real, tiny trainings deliver: loaded as anybody would load it, and published whole."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.runtime.hub_server import WRITER, Fault, LoopbackHub
from tests.runtime.pod_process import TINY_LLAMA, PodFolder, plan_for

from podproof.runtime.events import EventKind
from podproof.runtime.plan import (
    AdapterKind,
    AdapterPlan,
    MethodName,
    ModelPlan,
    Plan,
    PublishPlan,
    PublishTo,
)

REPO = "me/tiny"
QUESTION = [{"role": "user", "content": "What is 7?"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a whole, tiny model and a tokenizer with a chat template."""
    from podproof.runtime.models import load_model

    folder = tmp_path_factory.mktemp("base")
    plan = replace(plan_for().model, config=TINY_LLAMA)
    loaded = load_model(plan, AdapterKind.NONE, seed=1, texts=["What is 7? It is 7."], extra={})
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with_hub = LoopbackHub()
    yield with_hub
    with_hub.stop()


def adapter_plan(method: MethodName, base: Path) -> Plan:
    model = ModelPlan(name_or_path=str(base), dtype="float32")
    return replace(plan_for(method), model=model, adapter=AdapterPlan(kind=AdapterKind.LORA, r=2))


def published(plan: Plan) -> Plan:
    return replace(plan, publish=PublishPlan(to=PublishTo.HUB, repo_id=REPO))


def set_environment(values: dict[str, str]) -> None:
    os.environ.update(values)


def reach(hub: LoopbackHub, **more: str) -> Any:
    """Return what lets a run reach the hub; it is called in the run's own process."""
    values = {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITER, "PODPROOF_PAUSE_SECONDS": "0.01"}
    return partial(set_environment, {**values, **more})


def answers(folder: Path, model: Any) -> bool:
    """Tell whether the model takes what its tokenizer makes of a conversation."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
    with torch.no_grad():
        logits = model(**tokenizer(text, return_tensors="pt")).logits
    return bool(torch.isfinite(logits).all())


def metadata(folder: Path) -> dict[str, Any]:
    fields = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert isinstance(fields, dict)
    return fields


METHODS = [
    MethodName.SFT,
    pytest.param(MethodName.DPO, marks=pytest.mark.slow),
    pytest.param(MethodName.ORPO, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("method", METHODS)
def test_a_delivered_model_loads_with_its_tokenizer_and_chat_template(
    tmp_path: Path, method: MethodName
) -> None:
    from transformers import AutoModelForCausalLM

    run = PodFolder(tmp_path / "run", plan_for(method))

    assert run.run() == 0, run.log

    folder = run.output / "delivered"
    assert (folder / "chat_template.jinja").is_file()
    assert answers(folder, AutoModelForCausalLM.from_pretrained(folder))
    assert metadata(folder)["tags"] == ["podproof", "trl", method.value]
    assert (folder / "README.md").read_text().count("**chosen**") == 1


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("method", METHODS)
def test_a_delivered_adapter_loads_with_its_base_tokenizer_and_chat_template(
    tmp_path: Path, base: Path, method: MethodName
) -> None:
    from peft import AutoPeftModelForCausalLM

    run = PodFolder(tmp_path / "run", adapter_plan(method, base))

    assert run.run() == 0, run.log

    folder = run.output / "delivered"
    model = AutoPeftModelForCausalLM.from_pretrained(folder)
    assert model.peft_config["default"].base_model_name_or_path == str(base)
    assert (folder / "chat_template.jinja").is_file()
    assert answers(folder, model)
    assert metadata(folder)["library_name"] == "peft"
    assert "More Information Needed" not in (folder / "README.md").read_text()


def test_a_run_that_is_killed_while_it_publishes_only_publishes_when_it_starts_again(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    run = PodFolder(tmp_path / "run", published(plan_for()))
    hub.fail("commit", Fault.NEVER_ANSWER)
    process = run.start(before=reach(hub))
    hub.wait_until(lambda: hub.count("commit") == 1)
    process.kill()
    process.join()
    trained = run.losses()

    assert run.run(before=reach(hub)) == 0, run.log

    files = {path.name: path.read_bytes() for path in (run.output / "delivered").iterdir()}
    assert hub.repositories[REPO].files.items() >= files.items()
    assert len(hub.repositories[REPO].commits) == 2
    assert hub.count("put") == 1
    assert run.losses() == trained
    assert "nothing is trained again" in run.log
    (done,) = run.events(EventKind.DONE)
    assert done.body["published"]["commit"] == hub.repositories[REPO].commits[-1][0]
    assert WRITER not in run.log + (run.output / "events.jsonl").read_text()


def test_a_signal_while_it_publishes_ends_it_at_once_and_it_goes_on_later(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    run = PodFolder(tmp_path / "run", published(plan_for()))
    hub.fail("commit", Fault.NEVER_ANSWER)
    process = run.start(before=reach(hub))
    hub.wait_until(lambda: hub.count("commit") == 1)
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(60)

    assert process.exitcode == 143
    assert run.ending()["kind"] == "preempted"
    assert run.run(before=reach(hub)) == 0, run.log


def test_what_the_hub_refuses_stays_on_the_volume_and_the_ending_says_where(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    run = PodFolder(tmp_path / "run", published(plan_for()))
    hub.fail("commit", Fault.FORBIDDEN)

    assert run.run(before=reach(hub)) == 7

    (failed,) = run.events(EventKind.FAILED)
    assert failed.body["error"] == "NotPublished"
    assert f"the weights lie in {run.output / 'delivered'}" in failed.body["problems"][0]
    assert (run.output / "delivered" / "model.safetensors").is_file()


def test_a_token_that_is_refused_ends_a_run_before_it_has_cost_anything(
    tmp_path: Path, hub: LoopbackHub
) -> None:
    run = PodFolder(tmp_path / "run", published(plan_for()))

    wrong = {"HF_TOKEN": "hf_wrong"}
    assert run.run(before=reach(hub, **wrong)) == 2

    assert run.events(EventKind.STARTED, EventKind.TRAIN_LOG) == []
    assert "hf_wrong" not in run.log + (run.output / "events.jsonl").read_text()
