"""From a checked Config to a Run: exact trainer arguments, exact pins, one content hash."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from podproof.compiler.gpu_rules import DEEPSPEED_OURS
from podproof.compiler.ir import PodSpec, Run
from podproof.compiler.optimizers import BITSANDBYTES_OPTIMIZERS
from podproof.compiler.own_scorer import own_scorer_text
from podproof.compiler.pins import (
    BITSANDBYTES_PINS,
    DEEPSPEED_PINS,
    GGUF_PINS,
    HUB_PINS,
    INTEGRATION_PINS,
    JSON_SCHEMA_PINS,
    POD_PINS,
)
from podproof.compiler.schema import Config, EvalStrategy, PodConfig, plain
from podproof.runtime.plan import AdapterKind, Plan, PublishTo, ScorerPlan, Validator

# The selection rule: the callback writes this metric into every evaluation, higher is better,
# and the trainer's own machinery keeps, protects and finally loads the checkpoint it names.
SELECTION = {
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_checkpoint_score",
    "greater_is_better": True,
}


def lower(config: Config) -> Run:
    """Return the Run of a checked config; the same config gives the same Run, however written.

    Raise OSError when the user's scorer file went away after the check.
    """
    own_scorer = own_scorer_text(config.scorer)
    plan = Plan(
        name=config.name,
        seed=config.seed,
        method=config.method.name,
        model=config.model,
        data=config.data,
        adapter=config.adapter,
        arguments=arguments_of(config),
        scorer=_scorer(config.scorer),
        recovery=config.recovery,
        predictions=config.predictions,
        report=config.report,
        publish=config.publish,
        gpu_count=config.pod.gpu_count,
        node_count=config.pod.node_count,
        config_sha256=config_sha256(config, own_scorer),
    )
    return Run(
        plan=plan,
        pod=pod_spec(config.pod),
        requirements=requirements_of(config),
        gates_level=config.gates.level.value,
        gates_skip=tuple(sorted(config.gates.skip.items())),
        own_scorer=own_scorer,
    )


def config_sha256(config: Config, own_scorer: str | None = None) -> str:
    """Return the hex sha256 of the config's values as canonical JSON; key order does not matter.

    The text of the user's scorer counts, and of its path the file's name only.
    """
    values = plain(replace(config, scorer=_scorer(config.scorer)))
    if own_scorer is not None:
        values["own_scorer"] = own_scorer
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _scorer(scorer: ScorerPlan) -> ScorerPlan:
    """Return the scorer with its file's bare name: where it lies on this machine is no matter."""
    return scorer if scorer.file is None else replace(scorer, file=Path(scorer.file).name)


def arguments_of(config: Config) -> dict[str, Any]:
    """Return the keyword arguments of the method's TRL config class, nulls left to its defaults."""
    trainer, method = plain(config.trainer), plain(config.method)
    extra = trainer.pop("extra")
    if trainer["deepspeed"]:
        trainer["deepspeed"] = {**trainer["deepspeed"], **dict.fromkeys(DEEPSPEED_OURS, "auto")}
    for name in ("fsdp", "fsdp_config", "deepspeed"):
        # False and {} are what the libraries take when nothing is said.
        trainer[name] = trainer[name] or None
    del method["name"]
    merged = {**trainer, **method, **_schedule(config), "seed": config.seed}
    merged["report_to"] = list(config.report.integrations) or "none"
    kept = {key: value for key, value in merged.items() if value is not None}
    # Here null means no limit, which is not what the libraries take when it is absent.
    kept["max_length"] = merged["max_length"]
    return {**kept, **extra}


def _schedule(config: Config) -> dict[str, Any]:
    """Return when to evaluate and save, and which checkpoint to end with."""
    strategy = config.trainer.eval_strategy
    save_steps = config.trainer.save_steps or config.trainer.eval_steps
    if strategy is EvalStrategy.NO:
        return {"save_strategy": "steps", "save_steps": save_steps, "eval_steps": None}
    common = {"save_strategy": strategy.value, **SELECTION}
    if strategy is EvalStrategy.EPOCH:
        return {**common, "eval_steps": None, "save_steps": None}
    return {**common, "save_steps": save_steps}


def requirements_of(config: Config) -> tuple[str, ...]:
    """Return the exact pins of the script, sorted: ours for this config, and the config's own."""
    pins = dict(POD_PINS)
    is_quantized = config.adapter.kind is AdapterKind.QLORA
    if is_quantized or config.trainer.optim in BITSANDBYTES_OPTIMIZERS:
        pins |= BITSANDBYTES_PINS
    if config.trainer.deepspeed:
        pins |= DEEPSPEED_PINS
    if config.model.gguf_file is not None:
        pins |= GGUF_PINS
    if config.publish.to is PublishTo.HUB:
        pins |= HUB_PINS
    if config.predictions.enabled and Validator.JSON_SCHEMA in config.predictions.validators:
        pins |= JSON_SCHEMA_PINS
    for integration in config.report.integrations:
        pins |= INTEGRATION_PINS.get(integration, {})
    pins |= {canonicalize_name(name): pin for name, pin in config.pod.requirements.items()}
    return tuple(sorted(f"{package}=={version}" for package, version in pins.items()))


def pod_spec(pod: PodConfig) -> PodSpec:
    """Return the pod to rent, its mappings in one order."""
    return PodSpec(
        provider=pod.provider,
        image=pod.image,
        gpu=pod.gpu,
        gpu_count=pod.gpu_count,
        node_count=pod.node_count,
        cloud=pod.cloud,
        data_centers=pod.data_centers,
        cuda_versions=pod.cuda_versions,
        container_disk_gb=pod.container_disk_gb,
        volume_gb=pod.volume_gb,
        network_volume=pod.network_volume,
        max_hours=pod.max_hours,
        max_usd=pod.max_usd,
        env=tuple(sorted(pod.env.items())),
        secrets=tuple(sorted(pod.secrets.items())),
    )
