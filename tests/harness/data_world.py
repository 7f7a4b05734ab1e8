"""Files of rows, a model's folder with a tokenizer, and the data gate asked about both."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from podproof.compiler.ir import PodScript
from podproof.harness.data import data_answer
from podproof.harness.verdict import OnProgress, Surroundings, untold
from podproof.runtime.errors import Problem
from podproof.runtime.models import train_tokenizer
from podproof.runtime.plan import DataPlan, EvalPlan, MethodName, ModelInit, ModelPlan, Plan
from tests.harness.conftest import script_of

USER = {"role": "user", "content": "What does len do?"}
PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


@dataclass(frozen=True)
class Answered:
    """What the gate said."""

    summary: str
    problems: tuple[Problem, ...]
    details: Mapping[str, Any]

    @property
    def text(self) -> str:
        return "\n".join(map(str, self.problems))


def talk(number: int, said: str = "It counts.") -> dict[str, Any]:
    """Return a conversation that differs from those of other numbers."""
    asked = {"role": "user", "content": f"Question {number}: what does len do?"}
    return {"messages": [asked, {"role": "assistant", "content": said}]}


def talks(count: int) -> list[dict[str, Any]]:
    return [talk(number) for number in range(count)]


def pair(number: int, prompt: str = "What does len do?") -> dict[str, Any]:
    return {"prompt": f"{number}: {prompt}", "chosen": "It counts.", "rejected": "It sorts."}


def write_rows(folder: Path, rows: Iterable[Any], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@cache
def tiny() -> PodScript:
    return script_of("experiment=tiny_sft")


def plan_of(
    data: DataPlan,
    *,
    method: MethodName = MethodName.SFT,
    model: ModelPlan | None = None,
    **arguments: Any,
) -> Plan:
    """Return the tiny plan with other rows, and other arguments for its trainer."""
    plan = tiny().run.plan
    return replace(
        plan,
        data=data,
        method=method,
        model=model or plan.model,
        arguments={**plan.arguments, "max_length": None, **arguments},
    )


def ask(
    folder: Path,
    plan: Plan,
    home: Path | None = None,
    on_progress: OnProgress = untold,
) -> Answered:
    script = tiny()
    script = replace(script, run=replace(script.run, plan=plan))
    return Answered(*data_answer(script, Surroundings((folder,), home, on_progress=on_progress)))


def data_of(
    folder: Path, rows: Sequence[Any], eval_rows: Sequence[Any] = (), **fields: Any
) -> DataPlan:
    """Write rows, and evaluation rows if there are any, and return the plan that reads them."""
    write_rows(folder, rows)
    if not eval_rows:
        return DataPlan(path="rows.jsonl", **fields)
    write_rows(folder, eval_rows, "held_out.jsonl")
    return DataPlan(path="rows.jsonl", eval=EvalPlan(path="held_out.jsonl"), **fields)


def model_folder(folder: Path, **config: Any) -> ModelPlan:
    """Save a byte-level tokenizer as a model's folder has it; `config` goes into its config."""
    place = folder / "model"
    place.mkdir()
    texts = [f"{turn['content']}" for row in talks(9) for turn in row["messages"]]
    train_tokenizer(ModelPlan(tokenizer_vocab_size=320), texts).save(str(place / "tokenizer.json"))
    tokens = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (place / "tokenizer_config.json").write_text(json.dumps(tokens | config), encoding="utf-8")
    return ModelPlan(name_or_path=str(place), init=ModelInit.PRETRAINED)
