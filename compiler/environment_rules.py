"""What may stand in the environment of a pod: names, values that can be sent, no credentials."""

import re
from collections.abc import Iterator, Mapping

from podproof.compiler.credentials import SECRET_SHAPES, credential_in
from podproof.compiler.ir import Provider
from podproof.compiler.limits import CARRIED, ENV_NAME, RESERVED_ENV
from podproof.compiler.schema import Config
from podproof.runtime.errors import Problem
from podproof.runtime.plan import DataSource, ModelInit, PublishTo

WIRE_WAY_OUT = "leave out quotes, backslashes, newlines and NUL: RunPod's SDK escapes nothing"

_LONGEST_SECRET_NAME = 100
_FALSE = frozenset({"", "0", "false", "no", "off"})

# Owners, or beginnings of names, whose models the hub gives to accounts that accepted a licence.
# Source: the models' own pages.
_GATED_MODELS = ("meta-llama/", "google/gemma-")

# Variables that choose among GPUs: RunPod shows a pod the ones it rents.
_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")

# Variables that forbid what the pod must do, with what it must do.
_HUB_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_INSTALL_SWITCHES = ("UV_OFFLINE", "UV_NO_INDEX", "PIP_NO_INDEX")

# What an integration cannot do without, and the variable by which it does.
_INTEGRATION_TOKENS: Mapping[str, tuple[str, str]] = {
    "wandb": ("WANDB_API_KEY", "WANDB_MODE"),
}


def variables(config: Config) -> Iterator[Problem]:
    """Refuse names that are none, and values that cannot be sent."""
    pod = config.pod
    pairs = [("env", *item) for item in pod.env.items()]
    pairs += [("secrets", *item) for item in pod.secrets.items()]
    for section, name, value in pairs:
        key = f"pod.{section}.{name}"
        if not ENV_NAME.fullmatch(name):
            yield Problem(key, "is not the name of an environment variable", "use A-Z, 0-9 and _")
        if RESERVED_ENV.fullmatch(name):
            yield Problem(key, "is set by RunPod or podproof", "choose another name")
        if not CARRIED.fullmatch(value):
            # The value may be somebody's key, so it is not shown.
            yield Problem(key, "has a character that cannot be sent to a pod", WIRE_WAY_OUT)
    for name in sorted(pod.env.keys() & pod.secrets.keys()):
        yield Problem(f"pod.secrets.{name}", "is in pod.env too", f"take pod.env.{name} out")


def credentials(config: Config) -> Iterator[Problem]:
    """Refuse credentials in plain text; a value is never shown."""
    for name, value in config.pod.env.items():
        kind = credential_in(name, value)
        if kind is not None:
            what = f"holds what looks like {kind}, in plain text, in the config and on the pod"
            way_out = (
                f"make a secret in RunPod's console, then +pod.secrets.{name}=name_of_the_secret"
            )
            yield Problem(f"pod.env.{name}", what, way_out)
    for name, secret in config.pod.secrets.items():
        is_shaped = any(shape.search(secret) for shape in SECRET_SHAPES.values())
        is_name = re.fullmatch(r"[A-Za-z0-9_]+", secret) and len(secret) <= _LONGEST_SECRET_NAME
        if is_shaped or not is_name:
            what = "must be the name of a RunPod secret, not its value"
            yield Problem(f"pod.secrets.{name}", what, "create the secret in RunPod's console")


def switches(config: Config) -> Iterator[Problem]:
    """Refuse variables that keep a rented pod from doing what it is rented for."""
    if config.pod.provider is Provider.LOCAL:
        return
    for name in _GPU_VARIABLES:
        if name in config.pod.env:
            what = "hides GPUs that are paid for, or names some that are not there"
            yield Problem(f"pod.env.{name}", what, "take it out: pod.gpu_count says how many")
    forbidding = [(name, "reach the hub") for name in _HUB_SWITCHES if _needs_hub(config)]
    forbidding += [(name, "install its packages") for name in _INSTALL_SWITCHES]
    for name, duty in forbidding:
        if config.pod.env.get(name, "").lower() not in _FALSE:
            yield Problem(f"pod.env.{name}", f"forbids the pod to {duty}", "take it out")


def tokens(config: Config) -> Iterator[Problem]:
    """Refuse a rented pod that would ask the hub, or an integration, without the token it needs."""
    pod, name = config.pod, config.model.name_or_path
    if pod.provider is Provider.LOCAL:
        return
    is_asked = config.model.init is ModelInit.PRETRAINED and name.startswith(_GATED_MODELS)
    if is_asked and "HF_TOKEN" not in pod.secrets:
        what = f"{name} is given to accounts that accepted its licence, and HF_TOKEN is not there"
        way_out = "make a secret in RunPod's console, then +pod.secrets.HF_TOKEN=name_of_the_secret"
        yield Problem("pod.secrets", what, way_out)
    for integration in config.report.integrations:
        token, mode = _INTEGRATION_TOKENS.get(integration, ("", ""))
        if token and token not in pod.secrets and mode not in pod.env:
            what = f"{integration} stops a run that nobody can log in for: {token} is not there"
            way_out = f"set +pod.secrets.{token}=name_of_the_secret, or +pod.env.{mode}=offline"
            yield Problem("report.integrations", what, way_out)


def _needs_hub(config: Config) -> bool:
    model = config.model
    is_loaded = model.init is ModelInit.PRETRAINED
    is_at_hand = model.name_or_path.startswith(("/", "./", "../", "package:"))
    is_published = config.publish.to is PublishTo.HUB
    return (is_loaded and not is_at_hand) or config.data.source is DataSource.HUB or is_published


ENVIRONMENT_RULES = (variables, credentials, switches, tokens)
