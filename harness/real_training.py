"""What is done in a fork of the warm process: build, train and load, with the script's own code.

The one module beside `runtime/` that imports the training libraries, and only inside functions: to
have them loaded before a fork, to make a model small, and to load what was delivered as its user
would. Everything else is done by the script, whose text is loaded as it stands.
"""

import contextlib
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from podproof.harness.embedded import embedded
from podproof.harness.promises import is_alike
from podproof.harness.shrink import Shrunken
from podproof.harness.small_model import with_small_model
from podproof.runtime.checkpoints import WEIGHT_FILES, checkpoint_step, list_checkpoints
from podproof.runtime.libraries import prepare_training_libraries
from podproof.runtime.plan import (
    AdapterKind,
    ModelInit,
    Plan,
    plan_from_json,
    plan_to_json,
)
from podproof.runtime.scorer import SCORE_KEY

SCRIPT_FILE = "pod_script.py"
PLAN_FILE = "plan.json"
OUTPUT_FOLDER = "output"

Result = tuple[int, Mapping[str, Any]]


def load_libraries() -> None:
    """Load all that a training needs, so that no fork has to."""
    prepare_training_libraries()
    import datasets  # noqa: F401
    import peft
    import transformers
    import trl
    from trl.experimental.orpo import ORPOTrainer  # noqa: F401

    # The others load a class when it is first named.
    _ = transformers.AutoModelForCausalLM, transformers.LlamaForCausalLM
    _ = transformers.PreTrainedTokenizerFast, peft.LoraConfig
    _ = trl.SFTTrainer, trl.DPOTrainer


class _BuiltError(BaseException):
    """Leaves the script's `main` where it would begin to train; no clause of its own catches it."""


def build(folder: Path, models: Path) -> Result:
    """Build the trainer of the plan, its optimizer and schedule, without a step of training.

    The script's own `main` does it, up to where `build_trainer` returns. The result says what was
    built, or what the libraries raised.
    """
    try:
        small = _small(folder, models)
    except Exception as error:  # a config that no model can be made of
        return 1, {"error": {**_told(error), "linear": []}}
    with embedded((folder / SCRIPT_FILE).read_text(encoding="utf-8")) as code:
        try:
            built, exit_code = _built(code, small.plan, folder)
            if built is None:
                return exit_code, {"notes": list(small.notes)}
            facts = _facts(built.trainer, small.plan)
            # Their arguments are judged only when they are made, which is when training begins.
            built.trainer.create_optimizer_and_scheduler(num_training_steps=100)
        except Exception as error:
            told = {**_told(error), "linear": _linear_names(small.plan)}
            return 1, {"notes": list(small.notes), "error": told}
    return 0, {"notes": [*small.notes, *built.adjustments], **facts}


def train(folder: Path, models: Path) -> Result:
    """Run the script's own `main` on the small plan and return its exit code."""
    small = _small(folder, models)
    with embedded((folder / SCRIPT_FILE).read_text(encoding="utf-8")) as code:
        return _main(code, small.plan, folder), {"notes": list(small.notes)}


def load(folder: Path, models: Path) -> Result:
    """Load what was delivered as its user would, and compute with it once.

    Then have the script deliver each checkpoint that was kept, as if that one were the best: the
    one that was may have been delivered only because it was the last.
    """
    import torch
    from transformers import AutoTokenizer

    plan = _small(folder, models).plan
    place = folder / OUTPUT_FOLDER / plan.publish.dir
    tokenizer = AutoTokenizer.from_pretrained(place)
    with embedded((folder / SCRIPT_FILE).read_text(encoding="utf-8")) as code:
        model = _loaded(code, plan, place)
        template = _template(code, plan)
        others = _not_delivered(code, plan, folder / OUTPUT_FOLDER)
    tokens = tokenizer("What comes after 7?", return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        logits = model(**tokens).logits
    facts = {"is_finite": bool(torch.isfinite(logits).all()), "wanted_template": template}
    return 0, {**facts, "template": tokenizer.chat_template, "not_delivered": others}


JOBS: Mapping[str, Callable[[Path, Path], Result]] = {"build": build, "train": train, "load": load}


def _small(folder: Path, models: Path) -> Shrunken:
    plan = plan_from_json((folder / PLAN_FILE).read_text(encoding="utf-8"))
    return with_small_model(plan, models)


def _main(code: Any, plan: Plan, folder: Path) -> int:
    """Run the script's `main` on a plan, as alone in its process; return its exit code."""
    sys.argv = [str(folder / SCRIPT_FILE)]
    os.environ["PODPROOF_OUTPUT"] = str(folder / OUTPUT_FOLDER)
    # The parts for several processes and for the hub are the two that need others.
    parts = {name: part for name, part in code.PARTS.items() if name not in {"ranks", "hub"}}
    exit_code: int = code.main(plan_to_json(plan), parts, [])
    return exit_code


def _built(code: Any, plan: Plan, folder: Path) -> tuple[Any, int]:
    """Return what the script's `build_trainer` makes, or None and how the script ended before it.

    Raise what it raises.
    """
    script_build = code.build_trainer
    caught: list[tuple[Any, Exception | None]] = []

    def build_only(*args: Any) -> None:
        try:
            caught.append((script_build(*args), None))
        except Exception as error:
            caught.append((None, error))
        raise _BuiltError

    code.build_trainer = build_only
    exit_code = 0
    with contextlib.suppress(_BuiltError):
        exit_code = _main(code, plan, folder)
    built, error = caught[0] if caught else (None, None)
    if error is not None:
        raise error
    return built, exit_code


def _facts(trainer: Any, plan: Plan) -> dict[str, Any]:
    """Return what a built trainer tells about itself, and which adapter names fit nothing."""
    named = dict(trainer.model.named_modules())
    parts = {part for name in named for part in name.split(".")}
    adapter = plan.adapter
    wanted = () if adapter.kind is AdapterKind.NONE else adapter.target_modules
    weights = [(item.numel(), item.requires_grad) for item in trainer.model.parameters()]
    return {
        "trainer": type(trainer).__name__,
        "weights": sum(count for count, _ in weights),
        "trained_weights": sum(count for count, is_trained in weights if is_trained),
        "linear": _linear_names(plan),
        "targets_lacking": [name for name in wanted if not _is_there(name, named)],
        "modules_lacking": [
            name
            for name in (() if adapter.kind is AdapterKind.NONE else adapter.modules_to_save)
            if name.rpartition(".")[2] not in parts
        ],
    }


def _is_there(target: str, named: Mapping[str, Any]) -> bool:
    """Tell whether a target fits a module; a place of a layer that was cut away always does."""
    if target == "all-linear" or any(part.isdecimal() for part in target.split(".")):
        return True
    return any(name == target or name.endswith(f".{target}") for name in named)


def _linear_names(plan: Plan) -> list[str]:
    """Return the names of the model's linear layers, each once, as adapters call them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if plan.model.init is ModelInit.RANDOM:
        config = AutoConfig.for_model(**plan.model.config)
    else:
        config = AutoConfig.from_pretrained(plan.model.name_or_path)
    modules = AutoModelForCausalLM.from_config(config).named_modules()
    linear = (torch.nn.Linear, _conv1d())
    return sorted({name.rpartition(".")[2] for name, each in modules if isinstance(each, linear)})


def _conv1d() -> Any:
    """Return what GPT-2 and its kin have in the place of linear layers."""
    from transformers.pytorch_utils import Conv1D

    return Conv1D


def _loaded(code: Any, plan: Plan, place: Path) -> Any:
    from transformers import AutoModelForCausalLM

    if plan.adapter.kind is AdapterKind.NONE:
        return AutoModelForCausalLM.from_pretrained(place)
    from peft import AutoPeftModelForCausalLM, PeftModel

    if plan.model.init is ModelInit.PRETRAINED:
        return AutoPeftModelForCausalLM.from_pretrained(place)
    # Only the script can make the base that was drawn at random.
    plan = code.plan_from_json(plan_to_json(plan))
    rows = code.read_data(plan.data, plan.method, ())
    texts = (text for row in rows.train for text in code.row_texts(row))
    base = code.load_model(plan.model, plan.adapter.kind, seed=plan.seed, texts=texts, extra={})
    return PeftModel.from_pretrained(base.model, place)


def _template(code: Any, plan: Plan) -> str | None:
    from transformers import AutoTokenizer

    if plan.model.chat_template is not None:
        return plan.model.chat_template
    is_drawn = plan.model.init is ModelInit.RANDOM
    name = plan.model.name_or_path
    template: str | None = (
        code.DEFAULT_CHAT_TEMPLATE
        if is_drawn
        else AutoTokenizer.from_pretrained(name).chat_template
    )
    return template


def _not_delivered(code: Any, plan: Plan, output: Path) -> list[int]:
    """Return the steps of those checkpoints that the script would not deliver, were they the best.

    They are delivered into another folder, from links to where they are.
    """
    checkpoints = list_checkpoints(output)
    history = json.loads((checkpoints[-1] / "trainer_state.json").read_text())["log_history"]
    again = output.with_name("again")
    again.mkdir()
    for path in checkpoints:
        (again / path.name).symlink_to(path)
    script_plan = code.plan_from_json(plan_to_json(plan))
    ending = code.TrainingEnding(code.EventKind.DONE, None, 0.0)
    wrong = []
    scored = {log["step"] for log in history if math.isfinite(log.get(SCORE_KEY, math.nan))}
    steps = {path: checkpoint_step(path) or 0 for path in checkpoints}
    for path, step in steps.items():
        # One without a usable score can never be the best.
        if step not in scored:
            continue
        facts = code.TrainingFacts(history, step, step, 0, 0, {})
        code.deliver_best(script_plan, again, facts, ending, str)
        there = again / plan.publish.dir
        names = [name for name in WEIGHT_FILES if (path / name).is_file()]
        wrong += [] if all(is_alike(path / name, there / name) for name in names) else [step]
    return wrong


def _told(error: Exception) -> dict[str, Any]:
    problems = getattr(error, "problems", ())
    return {
        "type": type(error).__name__,
        "message": str(error),
        "problems": [[item.where, item.what, item.way_out] for item in problems],
        "trace": traceback.format_exc().splitlines()[-12:],
    }
