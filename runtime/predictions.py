"""Sample predictions: what the model answers to a few fixed eval prompts, at evaluations.

For people to look at, never for the score. Training must not notice: answers are greedy and take
no random number, and whatever a model does while it answers, every module's mode and every random
state is put back, so that a run is the same to the bit with and without predictions. Prompts are
answered one by one, so nothing is padded and the time can be watched between two of them.
"""

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from podproof.runtime.answers import AnswerCheck, answer_checks
from podproof.runtime.events import EventKind
from podproof.runtime.hooks import IsolatedHooks, isolated
from podproof.runtime.plan import Plan, PredictionsPlan, Validator
from podproof.runtime.reporter import Report
from podproof.runtime.rows import Row, Rows
from podproof.runtime.trainers import as_trainer_callback

# Of each text an event carries so much, of the prompt its end: enough to read, and small.
PREDICTION_CHARACTERS = 2000

# One process alone may generate: others hold a part of the weights, or wait in a collective.
_PREDICTION_SETUPS = ("NO", "MULTI_GPU", "MULTI_CPU")

_PREDICTION_TOO_SLOW = "sample prompts left without an answer: predictions.max_seconds was over"


@dataclass(frozen=True)
class SamplePrompt:
    """A prompt of an eval row, text or turns, and what the row answers, if anything."""

    where: str
    prompt: str | Sequence[Mapping[str, Any]]
    expected: str
    tools: Any = None


def attach_predictions(trainer: Any, plan: Plan, rows: Rows, report: Report) -> None:
    """Have the trainer answer sample prompts at evaluations; where it cannot, say so once.

    Where parameters are spread over processes (FSDP, DeepSpeed, tensor parallel) answering would
    need all of them in step, so nothing is attached there. Under DDP rank 0 answers.
    """
    setup = str(getattr(trainer.accelerator.distributed_type, "value", "unknown"))
    is_sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    what = None
    if is_sharded or setup not in _PREDICTION_SETUPS:
        what = "no sample predictions: the weights are spread over several processes"
    elif not rows.eval:
        what = "no sample predictions: there are no evaluation rows"
    if what is None:
        samples = sample_prompts(rows.eval, plan.predictions.samples)
        trainer.add_callback(
            as_trainer_callback(PredictionHooks(plan.predictions, samples, report))
        )
    elif trainer.is_world_process_zero():
        report(EventKind.NOTICE, body={"what": what, "count": 1})


def sample_prompts(rows: Sequence[Row], count: int) -> tuple[SamplePrompt, ...]:
    """Return the prompts of at most `count` rows, spread evenly: the same for the same rows."""
    count = min(count, len(rows))
    return tuple(_sample_prompt(rows[index * len(rows) // count]) for index in range(count))


class PredictionHooks(IsolatedHooks):
    """The hook that answers the prompts; nothing it does or fails at reaches the trainer."""

    def __init__(
        self,
        plan: PredictionsPlan,
        samples: Sequence[SamplePrompt],
        report: Report,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the prompts; `clock` gives seconds that only grow."""
        super().__init__(report)
        self.plan, self.samples, self.clock = plan, samples, clock
        self.answered_step: int | None = None
        self.checks: Mapping[Validator, AnswerCheck] | None = None

    @isolated
    def on_evaluate(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        """Answer the prompts at every `every`-th evaluation, once however many eval sets it has."""
        is_due = (_evaluations_logged(state.log_history) - 1) % self.plan.every == 0
        is_known = state.global_step == self.answered_step
        if not state.is_world_process_zero or is_known or not is_due:
            return
        self.answered_step = state.global_step
        if self.checks is None:
            self.checks = answer_checks(self.plan)
        with _training_untouched(model), _precision_of(args, model):
            self._answer_all(state, model, processing_class, self._seconds(args))

    def _seconds(self, args: Any) -> float:
        # Other ranks wait for this one in their next collective, and give up after ddp_timeout.
        is_alone = getattr(args, "world_size", 1) == 1
        return (
            self.plan.max_seconds if is_alone else min(self.plan.max_seconds, args.ddp_timeout / 2)
        )

    def _answer_all(self, state: Any, model: Any, tokenizer: Any, seconds: float) -> None:
        over_s = self.clock() + seconds
        for index, sample in enumerate(self.samples):
            started_s = self.clock()
            if started_s >= over_s:
                left = len(self.samples) - index
                self._send(state, EventKind.NOTICE, {"what": _PREDICTION_TOO_SLOW, "count": left})
                return
            prompt = _prompt_as_text(sample, tokenizer)
            answer = self._answer(model, tokenizer, prompt, sample, over_s - started_s)
            expected = _as_far_as(sample.expected, tokenizer, self.plan.max_new_tokens)
            body = {
                "sample": index,
                "where": sample.where,
                "prompt": prompt[-PREDICTION_CHARACTERS:],
                "expected": expected[:PREDICTION_CHARACTERS],
                "answer": answer[:PREDICTION_CHARACTERS],
                "checks": self._measured(answer, expected),
                "seconds": self.clock() - started_s,
            }
            self._send(state, EventKind.PREDICTION, body)

    def _answer(
        self, model: Any, tokenizer: Any, prompt: str, sample: SamplePrompt, seconds: float
    ) -> str:
        from transformers import GenerationConfig

        # A chat template writes its special tokens itself.
        is_text = isinstance(sample.prompt, str)
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=is_text)
        ids = inputs["input_ids"].to(model.device)
        config = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=self.plan.max_new_tokens,
            max_time=seconds,
            use_cache=True,
            eos_token_id=_ending_tokens(model, tokenizer),
            pad_token_id=tokenizer.pad_token_id,
        )
        mask = inputs["attention_mask"].to(model.device)
        output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        return str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))

    def _measured(self, answer: str, expected: str) -> dict[str, bool | float]:
        checks = self.checks or {}
        return {name.value: check(answer, expected) for name, check in checks.items()}


def _sample_prompt(row: Row) -> SamplePrompt:
    """Return what a row asks and what it answers, by its columns as TRL names them."""
    columns, tools = row.columns, row.columns.get("tools")
    if "messages" in columns:
        turns = columns["messages"]
        last = max(i for i, turn in enumerate(turns) if turn["role"] == "assistant")
        return SamplePrompt(row.where, turns[:last], str(turns[last]["content"] or ""), tools)
    if "text" in columns:
        text = columns["text"]
        space = text.find(" ", len(text) // 2)
        middle = space if space > 0 else len(text) // 2
        return SamplePrompt(row.where, text[:middle], text[middle:])
    prompt, answer = columns.get("prompt"), columns.get("completion", columns.get("chosen"))
    if not prompt:
        # A preference pair without a prompt of its own: it is the turns that both begin with.
        pairs = zip(answer, columns["rejected"], strict=False)
        shared = next((i for i, (one, other) in enumerate(pairs) if one != other), len(answer) - 1)
        prompt, answer = answer[:shared], answer[shared:]
    expected = answer if isinstance(answer, str) else str(answer[0]["content"] or "")
    return SamplePrompt(row.where, prompt, expected, tools)


def _prompt_as_text(sample: SamplePrompt, tokenizer: Any) -> str:
    if isinstance(sample.prompt, str):
        return sample.prompt
    return str(
        tokenizer.apply_chat_template(
            list(sample.prompt), tools=sample.tools, tokenize=False, add_generation_prompt=True
        )
    )


def _as_far_as(expected: str, tokenizer: Any, most_tokens: int) -> str:
    """Return the expected text as far as an answer of so many tokens could reach."""
    ids = tokenizer(expected, add_special_tokens=False)["input_ids"]
    return expected if len(ids) <= most_tokens else str(tokenizer.decode(ids[:most_tokens]))


def _ending_tokens(model: Any, tokenizer: Any) -> list[int] | None:
    """Return the tokens that end an answer: those of the model and that of the tokenizer."""
    known = model.generation_config.eos_token_id
    tokens = [*(known if isinstance(known, list) else [known]), tokenizer.eos_token_id]
    return sorted({token for token in tokens if token is not None}) or None


def _evaluations_logged(log_history: Sequence[Mapping[str, Any]]) -> int:
    """Return at how many steps an evaluation was logged, also before a restart."""
    return len({entry.get("step") for entry in log_history if any(map(_is_of_eval, entry))})


def _is_of_eval(key: str) -> bool:
    return key.startswith("eval_")


@contextlib.contextmanager
def _training_untouched(model: Any) -> Iterator[None]:
    """Put the model into eval mode without gradients, and leave nothing changed behind."""
    import numpy as np
    import torch

    modes = [(module, module.training) for module in model.modules()]
    use_cache = getattr(model.config, "use_cache", None)
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - the state that trainers use
    gpus = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=gpus), torch.no_grad():
            model.eval()
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        model.config.use_cache = use_cache
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _precision_of(args: Any, model: Any) -> Any:
    """Return the autocast that the trainer computes in, since layers of two precisions need it."""
    import torch

    dtype = torch.float16 if getattr(args, "fp16", False) else torch.bfloat16
    is_mixed = bool(getattr(args, "bf16", False) or getattr(args, "fp16", False))
    return torch.autocast(model.device.type, dtype=dtype, enabled=is_mixed)
