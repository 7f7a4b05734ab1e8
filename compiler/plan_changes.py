"""What changed in what a config decides: plan, arguments, pins, pod and gates; rules as a table."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from podproof.compiler.anatomy import Anatomy, own_calls
from podproof.compiler.changes import Aspect, Change, Risk, Verb
from podproof.compiler.sides import Side
from podproof.runtime.arithmetic import arithmetic


@dataclass(frozen=True)
class Rule:
    """What a change below a key means; a change that is only told needs no approval."""

    aspect: Aspect
    risk: Risk
    mitigation: str

    @property
    def needs_approval(self) -> bool:
        """Tell whether somebody has to answer for it."""
        return self.risk is not Risk.LOW


_NEW_RESULTS = "compare it with a run of the old config before relying on it"
_SELECTION = "see which checkpoint past runs would have ended with: podproof rescore"
_LOW = "nothing that is learned depends on it"

# The longest key that a name starts with counts. Names are those of a plan, then pod and gates.
RULES: Mapping[str, Rule] = {
    "name": Rule(Aspect.CONFIG, Risk.LOW, "it names the pod and its folder"),
    "seed": Rule(Aspect.CONFIG, Risk.LOW, "results differ as between two runs of one config"),
    "method": Rule(Aspect.CONFIG, Risk.CRITICAL, "another loss is trained: treat it as a new run"),
    "model": Rule(Aspect.CONFIG, Risk.MEDIUM, _NEW_RESULTS),
    "model.name_or_path": Rule(Aspect.CONFIG, Risk.CRITICAL, "treat it as a new run"),
    "model.config": Rule(Aspect.CONFIG, Risk.CRITICAL, "treat it as a new run"),
    "model.init": Rule(Aspect.CONFIG, Risk.CRITICAL, "treat it as a new run"),
    "model.trust_remote_code": Rule(
        Aspect.CONFIG, Risk.CRITICAL, "read the code of the repository, and pin model.revision"
    ),
    "data": Rule(Aspect.CONFIG, Risk.MEDIUM, _NEW_RESULTS),
    "data.eval": Rule(
        Aspect.CONFIG, Risk.CRITICAL, "scores of old and new runs cannot be compared any more"
    ),
    "adapter": Rule(Aspect.CONFIG, Risk.MEDIUM, _NEW_RESULTS),
    "arguments": Rule(Aspect.ARGUMENTS, Risk.MEDIUM, _NEW_RESULTS),
    "scorer": Rule(Aspect.SCORER, Risk.MEDIUM, _SELECTION),
    "recovery": Rule(Aspect.CONFIG, Risk.LOW, "it matters when something fails only"),
    "recovery.resume": Rule(Aspect.CONFIG, Risk.MEDIUM, "see that the checkpoint is the one meant"),
    "predictions": Rule(Aspect.CONFIG, Risk.LOW, _LOW),
    "report": Rule(Aspect.ENVIRONMENT, Risk.MEDIUM, "see that the new place takes events"),
    "publish": Rule(Aspect.CONFIG, Risk.MEDIUM, "see where the weights end, and who can read them"),
    "publish.private": Rule(Aspect.CONFIG, Risk.CRITICAL, "anybody may get to read the weights"),
    "gpu_count": Rule(Aspect.CONFIG, Risk.MEDIUM, "see effective batch and price below"),
    "node_count": Rule(Aspect.CONFIG, Risk.MEDIUM, "see effective batch and price below"),
    "pod": Rule(Aspect.POD, Risk.MEDIUM, "see price and memory: podproof verify"),
    "pod.container_disk_gb": Rule(Aspect.POD, Risk.LOW, "more or less room on the disk"),
    "pod.volume_gb": Rule(Aspect.POD, Risk.LOW, "more or less room on the volume"),
    "gates": Rule(Aspect.GATES, Risk.MEDIUM, "say why less is proven than before"),
}

SELECTION_ARGUMENTS = frozenset(
    {"metric_for_best_model", "greater_is_better", "load_best_model_at_end"}
)
_LOW_ARGUMENTS = frozenset(
    {
        *("logging_steps", "logging_strategy", "logging_first_step", "report_to", "run_name"),
        *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor"),
        *("dataset_num_proc", "disable_tqdm", "save_total_limit", "per_device_eval_batch_size"),
        *("eval_accumulation_steps", "output_dir", "logging_dir", "seed"),
    }
)
_BATCH_KEYS = frozenset(
    {
        "arguments.per_device_train_batch_size",
        "arguments.gradient_accumulation_steps",
        "gpu_count",
        "node_count",
    }
)
# Keys that nothing reads, by the key that decides it and the values with which it does.
_IDLE: tuple[tuple[str, str, frozenset[Any]], ...] = (
    ("adapter.", "adapter.kind", frozenset({"none"})),
    ("predictions.", "predictions.enabled", frozenset({False})),
    ("scorer.gap_", "scorer.name", frozenset({"eval_loss", "seed_v1", "own"})),
    ("scorer.train_ema_alpha", "scorer.name", frozenset({"eval_loss", "seed_v1"})),
    ("scorer.reward_tolerance", "scorer.objective", frozenset({"loss", "accuracy"})),
    ("scorer.accuracy_weight", "scorer.objective", frozenset({"loss", "reward"})),
    ("scorer.eval_ema_alpha", "scorer.redrawn_eval", frozenset({False})),
)
_IDLE_RULE = Rule(Aspect.CONFIG, Risk.LOW, "nothing reads it with the rest of this config")
_SAME_BATCH = Rule(Aspect.ARGUMENTS, Risk.LOW, "the effective batch is the same")

# Follows from everything else, and says nothing of its own.
_DERIVED = {"config_sha256"}
_CONFIG_CALL = ("Config", "TrainingArguments")
_TRAINER_CONFIGS = ("SFTConfig", "DPOConfig", "ORPOConfig", "TrainingArguments")


def plan_changes(before: Side, after: Side) -> Iterator[Change]:
    """Yield what changed between two plans; nothing when a side has none."""
    if before.plan is None or after.plan is None:
        return
    one, other = _flat(before.plan), _flat(after.plan)
    has_same_batch = _sequences_per_step(before) == _sequences_per_step(after) is not None
    for change in _key_changes(one, other):
        if change.name in _BATCH_KEYS and has_same_batch:
            yield _by_rule(change, _SAME_BATCH)
        elif _is_idle(change.name, one) and _is_idle(change.name, other):
            yield _by_rule(change, _IDLE_RULE)
        else:
            yield change


def argument_changes(before: Anatomy, after: Anatomy) -> Iterator[Change]:
    """Yield what changed in the keyword arguments of config classes, in scripts without a plan."""
    yield from _key_changes(_written_arguments(before), _written_arguments(after))


def written_values(anatomy: Anatomy) -> dict[str, Any]:
    """Return the trainer's arguments in a script without a plan, by their bare names.

    A value that is not written out is given as its source.
    """
    values: dict[str, Any] = {}
    for key, source in _written_arguments(anatomy).items():
        owner, _, name = key.rpartition(".")
        if owner.endswith(_TRAINER_CONFIGS):
            values[name] = _literal(source)
    return values


def pod_changes(before: Side, after: Side) -> Iterator[Change]:
    """Yield what changed in pod and gates; environment and secrets are told elsewhere."""
    for head in ("pod", "gates"):
        one, other = getattr(before, head), getattr(after, head)
        if one is None or other is None:
            continue
        without = {"env", "secrets", "gpu_count", "node_count"}
        kept = ({k: v for k, v in side.items() if k not in without} for side in (one, other))
        flat = [{f"{head}.{key}": value for key, value in _flat(side).items()} for side in kept]
        for change in _key_changes(*flat):
            yield _lightened(change, *flat)


def _sequences_per_step(side: Side) -> int | None:
    plan = side.typed_plan
    return None if plan is None else arithmetic(plan, 1).sequences_per_step


def _key_changes(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Change]:
    for key in sorted(one.keys() | other.keys()):
        if key in _DERIVED or (key in one and key in other and one[key] == other[key]):
            continue
        verb = Verb.CHANGED if key in one and key in other else Verb.ADDED
        verb = Verb.REMOVED if key not in other else verb
        values = [_shown(side[key]) for side in (one, other) if key in side]
        rule = rule_of(key)
        yield Change(
            rule.aspect,
            verb,
            key,
            " -> ".join(values),
            rule.risk,
            rule.mitigation,
            needs_approval=rule.needs_approval,
        )


def rule_of(key: str) -> Rule:
    """Return what a change of this key means.

    >>> rule_of("arguments.learning_rate").risk.value, rule_of("arguments.logging_steps").risk.value
    ('MEDIUM', 'LOW')
    """
    last = key.rpartition(".")[2]
    if key.startswith("arguments.") and last in SELECTION_ARGUMENTS:
        return Rule(Aspect.SELECTION, Risk.CRITICAL, _SELECTION)
    if key.startswith("arguments.") and last in _LOW_ARGUMENTS:
        return Rule(Aspect.ARGUMENTS, Risk.LOW, _LOW)
    fitting = [name for name in RULES if f"{key}.".startswith(f"{name}.")]
    return RULES[max(fitting, key=len)] if fitting else _UNKNOWN_RULE


_UNKNOWN_RULE = Rule(
    Aspect.CONFIG, Risk.MEDIUM, "this podproof does not know the key: read about it"
)


def _by_rule(change: Change, rule: Rule) -> Change:
    return Change(
        change.aspect,
        change.verb,
        change.name,
        change.detail,
        rule.risk,
        rule.mitigation,
        needs_approval=rule.needs_approval,
    )


def _lightened(change: Change, one: Mapping[str, Any], other: Mapping[str, Any]) -> Change:
    """Return the change as LOW where it can only cost less, or prove more."""
    key = change.name
    if key in {"pod.max_hours", "pod.max_usd"} and _is_less(one.get(key), other.get(key)):
        return _by_rule(change, Rule(Aspect.POD, Risk.LOW, "the run can only cost less"))
    is_stricter = change.verb is Verb.REMOVED if key.startswith("gates.skip") else False
    if key == "gates.level":
        levels = ("static", "fast", "full")
        is_stricter = levels.index(one[key]) < levels.index(other[key])
    if is_stricter:
        return _by_rule(change, Rule(Aspect.GATES, Risk.LOW, "more is proven than before"))
    return change


def _is_less(old: float | None, new: float | None) -> bool:
    return new is not None and (old is None or new < old)


def _is_idle(key: str, flat: Mapping[str, Any]) -> bool:
    return any(
        key.startswith(prefix) and key != decider and flat.get(decider) in values
        for prefix, decider, values in _IDLE
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as dotted keys; an empty one keeps no key."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        flat |= _flat(item, f"{name}.") if isinstance(item, Mapping) else {name: item}
    return flat


_LONGEST = 60


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _written_arguments(anatomy: Anatomy) -> dict[str, str]:
    written: dict[str, str] = {}
    for call in own_calls(anatomy.tree):
        name = ast.unparse(call.func).rpartition(".")[2]
        if name.endswith(_CONFIG_CALL):
            for keyword in (item for item in call.keywords if item.arg is not None):
                written[f"arguments.{name}.{keyword.arg}"] = ast.unparse(keyword.value)
    return written


def _literal(source: str) -> Any:
    try:
        return ast.literal_eval(source)
    except (ValueError, SyntaxError):
        return source
