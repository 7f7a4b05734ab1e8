"""The model card: README.md of a delivered folder, which states how its weights were chosen.

Names come from a config and may hold anything, so none is written as it stands: in the metadata
each is a quoted YAML scalar, in the text each is code.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from podproof.runtime.plan import AdapterKind, DataSource, ModelInit, Objective, Plan, ScorerName
from podproof.runtime.scorer import replay_scores

MODEL_CARD = "README.md"

_CARD_FORMULAS = {
    ScorerName.ROBUST: "eval loss + {gap_weight} x gap, where gap is how far the eval loss lies "
    "above the moving average of the train loss (a new loss counts {train_ema_alpha}), at least 0 "
    "and at most {gap_limit} x the first eval loss",
    ScorerName.EVAL_LOSS: "eval loss",
    ScorerName.SEED_V1: "0.5 x eval loss + 0.3 x |train loss - eval loss| / eval loss "
    "+ 0.1 x min(perplexity / 20, 1) - 0.1 while the eval loss falls",
}
_CARD_OBJECTIVES = {
    Objective.LOSS: "The lowest score wins; of equal ones, the earliest.",
    Objective.REWARD: "Of the evaluations whose eval loss is within {reward_tolerance} of the "
    "best, relative to it, the one with the highest reward margin wins.",
    Objective.ACCURACY: "The score is lowered by {accuracy_weight} x accuracy, in units of the "
    "first eval loss. The lowest wins; of equal ones, the earliest.",
}
# What the methods log of the eval rows besides their loss, and what to call it.
_CARD_METRICS = {
    "eval_rewards/margins": "reward margin",
    "eval_rewards/accuracies": "reward accuracy",
    "eval_mean_token_accuracy": "token accuracy",
}
_CARD_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


@dataclass(frozen=True)
class TrainingFacts:
    """What a training was, as its card tells it.

    `log_history` is the trainer's, of the whole run; `best_step` is absent when no evaluation could
    be scored; `versions` maps packages to versions.
    """

    log_history: Sequence[Mapping[str, Any]]
    final_step: int
    best_step: int | None
    train_rows: int
    eval_rows: int
    versions: Mapping[str, str]


def model_card(plan: Plan, facts: TrainingFacts, step: int) -> str:
    """Return the card of the checkpoint of that step, as Markdown with YAML metadata.

    The same facts give the same text.
    """
    sections = (
        "\n".join(_card_metadata(plan)),
        f"# {_card_code(plan.name)}",
        _card_summary(plan, facts),
        f"## Evaluations\n\n{_card_table(plan, facts, step)}",
        f"## How the checkpoint was chosen\n\n{_card_choice(plan, facts, step)}",
        f"## Use\n\n{_card_use(plan)}",
        f"## Training\n\n{_card_training(plan, facts)}",
    )
    return "\n\n".join(sections) + "\n"


def _card_metadata(plan: Plan) -> Iterator[str]:
    is_adapter = plan.adapter.kind is not AdapterKind.NONE
    yield "---"
    if _card_is_hub_model(plan):
        yield f"base_model: {_card_scalar(plan.model.name_or_path)}"
        yield f"base_model_relation: {'adapter' if is_adapter else 'finetune'}"
    yield f"library_name: {'peft' if is_adapter else 'transformers'}"
    yield "pipeline_tag: text-generation"
    yield "tags:"
    tags = ["podproof", "trl", plan.method.value, *([plan.adapter.kind.value] * is_adapter)]
    yield from (f"- {_card_scalar(tag)}" for tag in tags)
    if plan.data.source is DataSource.HUB:
        yield "datasets:"
        yield f"- {_card_scalar(plan.data.path)}"
    yield "---"


def _card_summary(plan: Plan, facts: TrainingFacts) -> str:
    kinds = {
        AdapterKind.NONE: "All weights",
        AdapterKind.LORA: "A LoRA adapter",
        AdapterKind.QLORA: "A LoRA adapter on a base held in 4 bits",
    }
    rows = f"{facts.train_rows} rows, {facts.eval_rows} more to evaluate"
    trained = f"trained by {plan.method.value.upper()} for {facts.final_step} steps on {rows}"
    return f"{kinds[plan.adapter.kind]} of {_card_base(plan)}, {trained}."


def _card_base(plan: Plan) -> str:
    if plan.model.init is ModelInit.RANDOM:
        kind = _card_code(str(plan.model.config.get("model_type")))
        return f"a {kind} model whose first weights were drawn at random (seed {plan.seed})"
    # A path of the machine it was trained on says nothing elsewhere but its last part.
    name = plan.model.name_or_path
    text = _card_code(name if _card_is_hub_model(plan) or ":" in name else PurePath(name).name)
    revision = plan.model.revision
    return text if revision is None else f"{text} at revision {_card_code(revision)}"


def _card_is_hub_model(plan: Plan) -> bool:
    # transformers decides the same way: a folder of that name comes first.
    name = plan.model.name_or_path
    is_pretrained = plan.model.init is ModelInit.PRETRAINED
    return is_pretrained and bool(_CARD_HUB_ID.fullmatch(name)) and not Path(name).is_dir()


def _card_table(plan: Plan, facts: TrainingFacts, step: int) -> str:
    scores = replay_scores(facts.log_history, plan.scorer)[1]
    if not scores:
        return "None: this run was not evaluated."
    logs = {log.get("step"): log for log in facts.log_history if "eval_loss" in log}
    parts = list(dict.fromkeys(name for score in scores for name in score.components))
    metrics = [key for key in _CARD_METRICS if any(key in log for log in logs.values())]
    names = ["step", "eval loss", "score", *parts, *(_CARD_METRICS[key] for key in metrics), ""]
    lines = [_card_row(_card_cell(name) for name in names), _card_row(["---:"] * len(names))]
    for score in scores:
        log = logs[score.step]
        cells = [str(score.step), _card_number(log["eval_loss"]), _card_number(score.value)]
        cells += [_card_number(score.components.get(name)) for name in parts]
        cells += [_card_number(log.get(key)) for key in metrics]
        lines.append(_card_row([*cells, "**chosen**" if score.step == step else ""]))
    return "\n".join(lines)


def _card_choice(plan: Plan, facts: TrainingFacts, step: int) -> str:
    these = f"These are the weights of step {step} of {facts.final_step}"
    if facts.best_step is None:
        return f"{these}, the last checkpoint: no evaluation could be scored."
    if step != facts.best_step:
        these += f", since those of step {facts.best_step} were damaged"
    weights = asdict(plan.scorer)
    formula = _CARD_FORMULAS.get(
        plan.scorer.name, "a formula of its own, which starts from eval loss"
    ).format_map(weights)
    rule = _CARD_OBJECTIVES[plan.scorer.objective].format_map(weights)
    scorer = _card_code(str(plan.scorer.name))
    return f"{these}, chosen by the scorer {scorer}: {formula}.\n\n{rule}"


def _card_use(plan: Plan) -> str:
    is_adapter = plan.adapter.kind is not AdapterKind.NONE
    place = json.dumps(plan.publish.repo_id or "path/to/this/folder")
    scheme, _, package = plan.model.name_or_path.partition(":")
    if is_adapter and plan.model.init is ModelInit.RANDOM:
        return (
            "The base is not stored: its weights were drawn at random by the pod script, and "
            "only the same script builds the model that this adapter fits."
        )
    if is_adapter and scheme == "package":
        file = plan.model.gguf_file
        options = "" if file is None else f", gguf_file={json.dumps(file)}"
        package = json.dumps(package)
        return _card_python(_CARD_LOAD_ON_PACKAGE, place=place, package=package, options=options)
    library = "peft" if is_adapter else "transformers"
    loader = "AutoPeftModelForCausalLM" if is_adapter else "AutoModelForCausalLM"
    return _card_python(_CARD_LOAD, place=place, library=library, loader=loader)


_CARD_LOAD = (
    "from {library} import {loader}",
    "from transformers import AutoTokenizer",
    "",
    "model = {loader}.from_pretrained({place})",
    "tokenizer = AutoTokenizer.from_pretrained({place})",
)
_CARD_LOAD_ON_PACKAGE = (
    "from importlib.util import find_spec",
    "",
    "from peft import PeftModel",
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "",
    "folder = find_spec({package}).submodule_search_locations[0]  # the base is a Python package",
    "base = AutoModelForCausalLM.from_pretrained(folder{options})",
    "model = PeftModel.from_pretrained(base, {place})",
    "tokenizer = AutoTokenizer.from_pretrained({place})",
)


def _card_python(lines: Iterable[str], **values: str) -> str:
    text = "\n".join(lines).format_map(values)
    return f"```python\n{text}\n```"


def _card_training(plan: Plan, facts: TrainingFacts) -> str:
    data = plan.data
    path = data.path if data.source is DataSource.HUB else PurePath(data.path).name
    settings: dict[str, Any] = {"data": {"source": data.source, "path": path, "split": data.split}}
    if plan.adapter.kind is not AdapterKind.NONE:
        settings["adapter"] = asdict(plan.adapter)
    settings |= {"trainer": plan.arguments, "dtype": plan.model.dtype, "seed": plan.seed}
    settings["versions"] = dict(facts.versions)
    shown = json.dumps(settings, indent=2, sort_keys=True)
    return f"sha256 of the config: `{plan.config_sha256}`\n\n```json\n{shown}\n```"


def _card_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _card_cell(name: str) -> str:
    """Return a heading that cannot end its cell; plain words stay plain."""
    if re.fullmatch(r"[\w /.-]*", name):
        return name
    return _card_code(name).replace("|", "\\|")


def _card_number(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.6g}" if is_number else "-"


def _card_code(text: str) -> str:
    """Return text as Markdown code, whatever is in it.

    >>> _card_code("a `b` <c>")
    '`` a `b` <c> ``'
    """
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", words)), default=0))
    pad = " " if "`" in words or not words else ""
    return f"{ticks}{pad}{words}{pad}{ticks}"


def _card_scalar(text: str) -> str:
    r"""Return text as a YAML scalar that nothing inside can end.

    >>> print(_card_scalar('a"b\n---'))
    "a\U00000022b\U0000000a---"
    """
    return '"' + "".join(map(_card_escaped, text)) + '"'


def _card_escaped(character: str) -> str:
    if character.isascii() and character.isprintable() and character not in '"\\':
        return character
    return f"\\U{ord(character):08x}"
