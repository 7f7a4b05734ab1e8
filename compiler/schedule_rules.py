"""What must fit each other over the steps of a run: warm-up, evaluations, scheduler, optimizer."""

from collections.abc import Iterator, Mapping

from packaging.utils import canonicalize_name

from podproof.compiler.optimizers import (
    FOREIGN_OPTIMIZERS,
    GRADIENT_SIZED_OPTIMIZERS,
    TARGETING_OPTIMIZERS,
    package_of,
)
from podproof.compiler.schema import Config, EvalStrategy
from podproof.runtime.errors import Problem

_LONGEST_WARMUP_SHARE = 0.5
# A shorter run is a try, with the warm-up of the real one.
FEWEST_STEPS = 50
# No run is longer; trainer.eval_steps has the same end.
_MOST_STEPS = 1_000_000
# Ten times the standard deviation that weights are drawn with (`initializer_range`).
_LARGEST_ADAM_RATE = 0.2
_LEAST_CLIP = 1e-4

# What `lr_scheduler_kwargs` may hold, and one of which it must, by scheduler: the signatures in
# transformers 5.23, `optimization.py`. Those that are not here take what torch takes.
_CYCLES = frozenset({"num_cycles"})
_LEAST_RATE = frozenset({"min_lr", "min_lr_rate"})
_DECAY = frozenset({"num_decay_steps"})
_SCHEDULER_KEYS: Mapping[str, frozenset[str]] = {
    "linear": frozenset(),
    "cosine": _CYCLES,
    "cosine_with_restarts": _CYCLES,
    "polynomial": frozenset({"lr_end", "power"}),
    "inverse_sqrt": frozenset({"timescale"}),
    "cosine_with_min_lr": _CYCLES | _LEAST_RATE,
    "cosine_warmup_with_min_lr": _CYCLES | _LEAST_RATE | {"warmup_lr_rate"},
    "warmup_stable_decay": _CYCLES
    | _DECAY
    | {"num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio"},
}
_SCHEDULER_NEEDS: Mapping[str, frozenset[str]] = {
    "cosine_with_min_lr": _LEAST_RATE,
    "cosine_warmup_with_min_lr": _LEAST_RATE,
    "warmup_stable_decay": _DECAY,
}
_USUAL = {"min_lr": 1e-6, "min_lr_rate": 0.1, "num_decay_steps": 100}


def warmup(config: Config) -> Iterator[Problem]:
    """Refuse a warm-up that is most of the run, or neither a share nor a number of steps."""
    steps, key = config.trainer.warmup_steps, "trainer.warmup_steps"
    total = config.trainer.max_steps
    if steps > 1 and steps % 1:
        what = f"must be a share below 1, or a whole number of steps, got {steps:g}"
        yield Problem(key, what, f"set {key}=0.03 (a share) or {key}=100 (steps)")
    elif _LONGEST_WARMUP_SHARE < steps < 1:
        what = f"warms up for {steps:.0%} of the run, and then there is little left to train"
        yield Problem(key, what, f"set {key}=0.03")
    elif FEWEST_STEPS <= total <= steps:
        what = f"{steps:g} steps of warm-up, and the run has {total}: the rate is never reached"
        yield Problem(key, what, f"set {key}=0.03 (a share)")


def first_evaluation(config: Config) -> Iterator[Problem]:
    """Refuse a delay of the evaluations that outlasts the run."""
    delay, total = config.trainer.extra.get("eval_delay"), config.trainer.max_steps
    strategy, key = config.trainer.eval_strategy, "trainer.extra.eval_delay"
    if isinstance(delay, bool) or not isinstance(delay, int | float):
        return
    ends = total if total > 0 else _MOST_STEPS
    if strategy is EvalStrategy.EPOCH:
        ends = _MOST_STEPS if total > 0 else int(config.trainer.num_train_epochs)
    if strategy is not EvalStrategy.NO and delay >= ends:
        what = f"delays every evaluation until {delay:,.10g}, and the run ends at {ends:,}"
        yield Problem(key, what, "take it out")


def learning_rate(config: Config) -> Iterator[Problem]:
    """Refuse a rate that moves every weight by more than its own size at each step."""
    rate, optimizer = config.trainer.learning_rate, config.trainer.optim
    is_slip = _LARGEST_ADAM_RATE < rate <= 1
    if is_slip and optimizer not in GRADIENT_SIZED_OPTIMIZERS:
        what = (
            f"must be at most {_LARGEST_ADAM_RATE:g} with {optimizer}, which moves each weight by "
            f"about as much at every step, got {rate:g}"
        )
        yield Problem("trainer.learning_rate", what, "set trainer.learning_rate=2e-5")


def adam(config: Config) -> Iterator[Problem]:
    """Refuse averages in the wrong order, and clipping to nearly nothing."""
    trainer = config.trainer
    if 0 <= trainer.adam_beta2 < trainer.adam_beta1 < 1:
        what = (
            f"must be at least adam_beta1 ({trainer.adam_beta1:g}), got {trainer.adam_beta2:g}: "
            "are the two mixed up?"
        )
        yield Problem("trainer.adam_beta2", what, "set trainer.adam_beta2=0.999")
    if 0 < trainer.max_grad_norm < _LEAST_CLIP:
        what = f"must be 0 (no clipping) or at least {_LEAST_CLIP:g}, got {trainer.max_grad_norm:g}"
        yield Problem("trainer.max_grad_norm", what, "set trainer.max_grad_norm=1.0")


def scheduler(config: Config) -> Iterator[Problem]:
    """Refuse settings that the scheduler does not take, or that it needs and has not got."""
    name, where = config.trainer.lr_scheduler_type, "trainer.extra.lr_scheduler_kwargs"
    given = config.trainer.extra.get("lr_scheduler_kwargs") or {}
    if not isinstance(given, dict):
        yield Problem(where, f"must be a mapping, got {type(given).__name__}", "write {key: value}")
        return
    taken = _SCHEDULER_KEYS.get(name)
    for key in sorted(map(str, given)) if taken is not None else ():
        if key not in (taken or ()):
            way_out = f"it takes {', '.join(sorted(taken or ()))}" if taken else "take it out"
            yield Problem(f"{where}.{key}", f"the scheduler {name} does not take it", way_out)
    needed = _SCHEDULER_NEEDS.get(name, frozenset())
    if needed and not needed & given.keys():
        what = f"{name} needs {' or '.join(sorted(needed))}"
        usual = max(needed)
        way_out = f"set +{where}.{usual}={_USUAL[usual]:g}"
        yield Problem("trainer.lr_scheduler_type", what, way_out)


def optimizer_packages(config: Config) -> Iterator[Problem]:
    """Refuse an optimizer, or kernels, whose package or modules the pod would not have."""
    name = config.trainer.optim
    if name in FOREIGN_OPTIMIZERS:
        what = f"{name} is for hardware that no pod has"
        yield Problem("trainer.optim", what, "set trainer.optim=adamw_torch_fused")
    needed = [("trainer.optim", name, package_of(name))]
    if config.trainer.extra.get("use_liger_kernel"):
        needed.append(("trainer.extra.use_liger_kernel", "it", "liger-kernel"))
    there = {canonicalize_name(item) for item in config.pod.requirements}
    for key, user, package in needed:
        if package is not None and package not in there:
            what = f"{user} needs the package {package}, which would not be on the pod"
            yield Problem(key, what, f"set +pod.requirements.{package}='VERSION'")
    targets = config.trainer.extra.get("optim_target_modules")
    if name.startswith(TARGETING_OPTIMIZERS) and not targets:
        what = f"{name} trains chosen modules, and none are chosen"
        way_out = "set +trainer.extra.optim_target_modules=all-linear"
        yield Problem("trainer.optim", what, way_out)


def optimizer_arguments(config: Config) -> Iterator[Problem]:
    """Refuse `optim_args` that transformers cannot take apart: it splits at commas, then at `=`."""
    key = "trainer.extra.optim_args"
    told = config.trainer.extra.get("optim_args")
    if not told:
        return
    parts = str(told).replace(" ", "").split(",")
    wrong = next((part for part in parts if part.count("=") != 1), None)
    if not isinstance(told, str) or wrong is not None:
        what = f"{wrong!r} is no NAME=VALUE" if isinstance(told, str) else f"{told!r} is no text"
        yield Problem(key, what, f"write it as +{key}='\"rank=64,scale=0.1\"'")


SCHEDULE_RULES = (
    warmup,
    first_evaluation,
    learning_rate,
    adam,
    scheduler,
    optimizer_packages,
    optimizer_arguments,
)
