"""Sample predictions: real models answer, and no training ever notices."""

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.runtime.test_callback import Recorder
from tests.runtime.test_trainers import PAIRS, ROWS, TINY_LLAMA, built_with, plan_for

from podproof.runtime.events import EventKind
from podproof.runtime.plan import AdapterKind, MethodName, Plan, PredictionsPlan, Validator
from podproof.runtime.predictions import (
    PREDICTION_CHARACTERS,
    PredictionHooks,
    _training_untouched,
    attach_predictions,
    sample_prompts,
)
from podproof.runtime.rows import Row

ASKED = PredictionsPlan(enabled=True, samples=2, max_new_tokens=5, validators=tuple(Validator)[:3])


# Training does not notice.


def plan_with_dropout(method: MethodName, kind: AdapterKind, **arguments: Any) -> Plan:
    """Return a plan whose every step draws random numbers, so that one more would show."""
    plan = plan_for(method, kind, max_steps=4, disable_dropout=False, **arguments)
    if method is MethodName.SFT:
        del plan.arguments["disable_dropout"]
    model = dataclasses.replace(plan.model, config={**TINY_LLAMA, "attention_dropout": 0.2})
    return dataclasses.replace(plan, model=model, predictions=ASKED)


def trained(plan: Plan, folder: Path, recorder: Recorder | None) -> Any:
    trainer = built_with(plan, folder).trainer
    if recorder is not None:
        attach_predictions(trainer, plan, ROWS[plan.method], recorder)
    trainer.train()
    return trainer


def trajectory(trainer: Any) -> tuple[list[Any], dict[str, list[float]]]:
    """Return all that was logged but times, and every weight at the end."""
    is_time = ("runtime", "_per_second")
    logs = [
        {key: value for key, value in entry.items() if not key.endswith(is_time)}
        for entry in trainer.state.log_history
    ]
    weights = trainer.model.state_dict().items()
    return logs, {name: tensor.flatten().tolist() for name, tensor in weights}


@pytest.mark.parametrize("kind", [AdapterKind.NONE, AdapterKind.LORA])
@pytest.mark.parametrize("method", list(MethodName))
def test_a_run_is_the_same_to_the_bit_with_and_without_predictions(
    method: MethodName, kind: AdapterKind, tmp_path: Path
) -> None:
    plan, recorder = plan_with_dropout(method, kind), Recorder()

    without = trained(plan, tmp_path / "without", None)
    with_them = trained(plan, tmp_path / "with", recorder)

    assert trajectory(with_them) == trajectory(without)
    assert recorder.steps(EventKind.PREDICTION) == [2, 2, 4, 4]
    assert recorder.bodies(EventKind.NOTICE) == []


def test_recomputed_activations_do_not_keep_a_model_from_answering(tmp_path: Path) -> None:
    recorder = Recorder()
    plan = plan_with_dropout(MethodName.SFT, AdapterKind.LORA, activation_checkpointing=True)

    trained(plan, tmp_path, recorder)

    assert recorder.steps(EventKind.PREDICTION) == [2, 2, 4, 4]
    assert recorder.bodies(EventKind.NOTICE) == []


def test_an_answer_is_told_with_its_prompt_the_expected_one_and_its_measures(
    tmp_path: Path,
) -> None:
    recorder = Recorder()

    trained(plan_with_dropout(MethodName.DPO, AdapterKind.NONE), tmp_path, recorder)

    first, second = recorder.bodies(EventKind.PREDICTION)[:2]
    assert (first["sample"], first["where"]) == (0, PAIRS.eval[0].where)
    assert (second["sample"], second["where"]) == (1, PAIRS.eval[1].where)
    assert "What is 7?" in first["prompt"]
    assert "It is 7.".startswith(first["expected"])
    assert set(first["checks"]) == {"exact_match", "character_error_rate", "json"}
    assert first["seconds"] > 0
    assert isinstance(first["answer"], str)


class Drawing:
    """A model that draws from every source of random numbers, and changes its own modes."""

    def __init__(self) -> None:
        self.model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
        self.model[0].eval()
        self.model.config = SimpleNamespace(use_cache=False)
        self.model.device = torch.device("cpu")
        self.drawn: tuple[Any, ...] = ()

    def draw_and_fail(self) -> None:
        with _training_untouched(self.model):
            self.drawn = self.next_numbers()
            raise MemoryError

    def next_numbers(self) -> tuple[Any, ...]:
        return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002, S311


@pytest.fixture
def seeded() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


def test_random_numbers_modes_and_settings_are_put_back(seeded: None) -> None:
    drawing = Drawing()
    with _training_untouched(drawing.model):
        first = drawing.next_numbers()
        modes_inside = [module.training for module in drawing.model.modules()]
        drawing.model.config.use_cache = True

    assert drawing.next_numbers() == first
    assert modes_inside == [False, False, False]
    assert [module.training for module in drawing.model.modules()] == [True, False, True]
    assert drawing.model.config.use_cache is False
    assert torch.is_grad_enabled()


def test_they_are_put_back_after_a_failure_too(seeded: None) -> None:
    drawing = Drawing()

    with pytest.raises(MemoryError):
        drawing.draw_and_fail()

    assert drawing.next_numbers() == drawing.drawn
    assert drawing.model.training


# A model at hand, without a trainer.


@pytest.fixture(scope="module")
def speaker(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a trainer whose model and tokenizer the hooks are given."""
    folder = tmp_path_factory.mktemp("speaker")
    return built_with(plan_for(MethodName.SFT), folder)


@dataclasses.dataclass
class Asking:
    """The hooks with a recorder, and a way to fire an evaluation at them."""

    model: Any
    tokenizer: Any
    plan: PredictionsPlan = ASKED
    clock: Callable[[], float] = itertools.count().__next__
    recorder: Recorder = dataclasses.field(default_factory=Recorder)
    args: Any = dataclasses.field(default_factory=lambda: SimpleNamespace(world_size=1))

    def __post_init__(self) -> None:
        samples = sample_prompts(ROWS[MethodName.SFT].eval, self.plan.samples)
        self.hooks = PredictionHooks(self.plan, samples, self.recorder, clock=self.clock)

    def evaluate(self, *steps: int, is_first: bool = True) -> list[int | None]:
        """Fire on_evaluate at the last of the steps, all of them logged; return where it spoke."""
        history = [{"eval_loss": 1.0, "step": step} for step in steps]
        state = SimpleNamespace(
            global_step=steps[-1], epoch=1.0, log_history=history, is_world_process_zero=is_first
        )
        self.hooks.on_evaluate(
            self.args, state, None, model=self.model, processing_class=self.tokenizer
        )
        return self.recorder.steps(EventKind.PREDICTION)


def asking(speaker: Any, **changes: Any) -> Asking:
    return Asking(speaker.trainer.model, speaker.trainer.processing_class, **changes)


def test_greedy_answers_do_not_change_from_one_asking_to_the_next(speaker: Any) -> None:
    ask = asking(speaker)

    ask.evaluate(2)
    ask.evaluate(2, 4)

    answers = [body["answer"] for body in ask.recorder.bodies(EventKind.PREDICTION)]
    assert answers[:2] == answers[2:]


def test_an_evaluation_of_two_sets_is_answered_once(speaker: Any) -> None:
    ask = asking(speaker)

    ask.evaluate(2)

    assert ask.evaluate(2, 2) == [2, 2]


def test_every_third_evaluation_counts_those_before_a_restart(speaker: Any) -> None:
    plan = dataclasses.replace(ASKED, every=3)

    assert asking(speaker, plan=plan).evaluate(2) == [2, 2]
    assert asking(speaker, plan=plan).evaluate(2, 4) == []
    assert asking(speaker, plan=plan).evaluate(2, 4, 4, 6, 8) == [8, 8]


def test_only_the_first_rank_answers(speaker: Any) -> None:
    assert asking(speaker).evaluate(2, is_first=False) == []


def test_prompts_for_which_there_is_no_time_are_left_out_and_counted(speaker: Any) -> None:
    # The clock moves one second whenever it is read: at the start, before and after an answer.
    plan = dataclasses.replace(ASKED, samples=3, max_seconds=2.0)

    spoke = asking(speaker, plan=plan)

    assert spoke.evaluate(2) == [2]
    (notice,) = spoke.recorder.bodies(EventKind.NOTICE)
    assert notice["count"] == 2
    assert "max_seconds" in notice["what"]


def test_other_ranks_are_not_kept_waiting_until_they_give_up(speaker: Any) -> None:
    plan = dataclasses.replace(ASKED, samples=3, max_seconds=3600.0)
    args = SimpleNamespace(world_size=2, ddp_timeout=4)

    assert asking(speaker, plan=plan, args=args).evaluate(2) == [2]


def test_generation_itself_stops_when_the_time_is_over(speaker: Any) -> None:
    long = dataclasses.replace(ASKED, samples=1, max_new_tokens=4096, max_seconds=1e-9)
    # A clock that stands still leaves the deadline to the model's own loop.
    ask = asking(speaker, plan=long, clock=lambda: 0.0)

    ask.evaluate(2)

    (body,) = ask.recorder.bodies(EventKind.PREDICTION)
    tokens = ask.tokenizer(body["answer"], add_special_tokens=False)["input_ids"]
    assert len(tokens) < 100


class Failing(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
    """A model that cannot answer."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(use_cache=False)
        self.generation_config = SimpleNamespace(eos_token_id=None)
        self.device = torch.device("cpu")

    def generate(self, **_inputs: Any) -> Any:
        raise RuntimeError("CUDA out of memory")


def test_a_model_that_cannot_answer_is_told_of_once_and_keeps_its_mode(speaker: Any) -> None:
    ask = Asking(Failing(), speaker.trainer.processing_class)

    ask.evaluate(2)
    ask.evaluate(2, 4)

    assert list(ask.hooks.failures.values()) == [2]
    (notice,) = ask.recorder.bodies(EventKind.NOTICE)
    assert notice["what"] == "on_evaluate raised RuntimeError: CUDA out of memory"
    assert ask.model.training


def test_a_bad_schema_is_told_of_and_training_goes_on(speaker: Any) -> None:
    plan = dataclasses.replace(
        ASKED, validators=(Validator.JSON_SCHEMA,), json_schema={"type": "objekt"}
    )
    ask = asking(speaker, plan=plan)

    assert ask.evaluate(2) == []
    assert "SchemaError" in ask.recorder.bodies(EventKind.NOTICE)[0]["what"]


def test_a_model_of_two_precisions_answers_as_it_trains(speaker: Any) -> None:
    # As QLoRA leaves it: the head in bfloat16, the norms in float32.
    plan = plan_for(MethodName.SFT)
    model = type(speaker.trainer.model)(speaker.trainer.model.config).to(torch.bfloat16)
    model.model.norm.to(torch.float32)
    args = SimpleNamespace(world_size=1, bf16=True, fp16=False)
    ask = Asking(model, speaker.trainer.processing_class, args=args)

    assert ask.evaluate(2) == [2, 2]
    assert ask.hooks.failures == {}
    assert plan.predictions.enabled is False


def test_long_texts_are_cut_in_the_record_and_the_end_of_a_prompt_kept(speaker: Any) -> None:
    ask = asking(speaker)
    ask.hooks.samples = sample_prompts(
        [
            Row(
                "rows:1",
                {"prompt": "a" * 9 + "b" * PREDICTION_CHARACTERS, "completion": "c" * 9000},
            )
        ],
        1,
    )

    ask.evaluate(2)

    (body,) = ask.recorder.bodies(EventKind.PREDICTION)
    assert body["prompt"] == "b" * PREDICTION_CHARACTERS
    assert set(body["expected"]) == {"c"}
    assert len(body["expected"]) <= PREDICTION_CHARACTERS
