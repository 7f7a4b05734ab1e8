"""Rules about trainer arguments that TRL or transformers would refuse, or misuse, on the pod.

Each was seen to fail there, or to do silently what nobody wants to pay for; the source is named
with the rule.
"""

from collections.abc import Iterator
from typing import Any

from podproof.compiler.ir import Provider
from podproof.compiler.schema import Config, DpoMethod, SftMethod
from podproof.runtime.errors import Problem
from podproof.runtime.plan import AdapterKind, MethodName, Resume

# The branches of DPOTrainer._compute_loss and the check in SFTTrainer, TRL 1.16.
DPO_LOSSES = (
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
)
# The last is an older name of the first, which TRL still takes.
SFT_LOSSES = ("nll", "dft", "chunked_nll")
PACKING_STRATEGIES = ("bfd", "bfd_split", "wrapped")
TRUNCATION_MODES = ("keep_start", "keep_end")
# Another word is taken for the first of these, and nothing is said (transformers 5.23).
SAMPLING_STRATEGIES = ("random", "sequential", "group_by_length", "batch_rebalance")

# One process writes a checkpoint, and the others wait.
_LEAST_TIMEOUT_S = 60

# Arguments that undo what the script is there for, with the reason.
REFUSED_ARGUMENTS = {
    "auto_find_batch_size": (
        "restarts with a smaller batch and a longer schedule, and keeps half-trained weights",
        "take it out: recovery.oom keeps batch and schedule",
    ),
    "enable_jit_checkpoint": (
        "saves at another moment than the script does when a pod is told to stop",
        "take it out: the script saves by itself",
    ),
    "restore_callback_states_from_checkpoint": (
        "replaces the script's callback by a copy of itself when a run is resumed",
        "take it out: the script rebuilds its memory from the log",
    ),
    "hub_token": ("is a secret, and would stand in the script", "name it in pod.secrets"),
    "push_to_hub": ("pushes every checkpoint, chosen or not", "set publish=hub"),
}


def unknown_choices(config: Config) -> Iterator[Problem]:
    """Refuse a loss, packing, truncation or order of rows that the libraries do not have."""
    method, sampling = config.method, config.trainer.extra.get("train_sampling_strategy")
    if isinstance(sampling, str):
        key = "trainer.extra.train_sampling_strategy"
        yield from _choice(key, sampling, SAMPLING_STRATEGIES)
    if isinstance(method, DpoMethod):
        for loss in method.loss_type:
            yield from _choice("method.loss_type", loss, DPO_LOSSES)
        yield from _choice("method.truncation_mode", method.truncation_mode, TRUNCATION_MODES)
    if isinstance(method, SftMethod):
        yield from _choice("method.loss_type", method.loss_type, SFT_LOSSES)
        yield from _choice("method.packing_strategy", method.packing_strategy, PACKING_STRATEGIES)


def _choice(key: str, given: str, choices: tuple[str, ...]) -> Iterator[Problem]:
    if given not in choices:
        what = f"must be one of {', '.join(choices)}, got {given!r}"
        yield Problem(key, what, f"set {key}={choices[0]} (TRL's default)")


def refused_arguments(config: Config) -> Iterator[Problem]:
    """Refuse arguments of `trainer.extra` that undo selection, recovery or secrecy."""
    extra = config.trainer.extra
    for key in sorted(extra.keys() & REFUSED_ARGUMENTS):
        if extra[key] not in (False, None):
            what, way_out = REFUSED_ARGUMENTS[key]
            yield Problem(f"trainer.extra.{key}", what, way_out)
    if extra.get("save_only_model") and config.recovery.resume is not Resume.NEVER:
        what = "leaves out what a run is resumed from, so every restart would begin anew"
        yield Problem(
            "trainer.extra.save_only_model", what, "set recovery.resume=never, or drop it"
        )
    if extra.get("ignore_data_skip") and config.recovery.resume is not Resume.NEVER:
        what = "trains a resumed run on the first rows once more, and on others never"
        yield Problem("trainer.extra.ignore_data_skip", what, "take it out")
    yield from _processes(config)
    if extra.get("use_cpu") and config.pod.gpu:
        what = "would leave the rented GPU idle"
        yield Problem("trainer.extra.use_cpu", what, "take it out, or set pod.gpu=[]")


def _processes(config: Config) -> Iterator[Problem]:
    extra, timeout_s = config.trainer.extra, config.trainer.extra.get("ddp_timeout")
    if extra.get("ddp_backend") == "gloo" and config.pod.gpu:
        what = "moves the gradients of rented GPUs through the CPU"
        yield Problem("trainer.extra.ddp_backend", what, "take it out: nccl is used on GPUs")
    if isinstance(timeout_s, int | float) and timeout_s < _LEAST_TIMEOUT_S:
        what = f"ends the run when one process waits {timeout_s:g} s for another, as at each save"
        yield Problem("trainer.extra.ddp_timeout", what, "take it out (1800)")


def workers(config: Config) -> Iterator[Problem]:
    """Refuse loader settings that torch refuses without worker processes."""
    extra = config.trainer.extra
    if config.trainer.dataloader_num_workers:
        return
    for key in ("dataloader_prefetch_factor", "dataloader_persistent_workers"):
        if extra.get(key):
            what = "needs worker processes, and trainer.dataloader_num_workers is 0"
            yield Problem(f"trainer.extra.{key}", what, "set trainer.dataloader_num_workers=2")


def quantized_twice(config: Config) -> Iterator[Problem]:
    """Refuse to quantize weights that come out of a quantized file."""
    if config.adapter.kind is AdapterKind.QLORA and config.model.gguf_file is not None:
        what = "the weights of a gguf file cannot be quantized again"
        yield Problem("adapter.kind", what, "set adapter.kind=lora")


def chat_template(config: Config) -> Iterator[Problem]:
    """Refuse a chat template that is no Jinja, as the tokenizer would at the first row."""
    if config.model.chat_template is None:
        return
    from jinja2 import TemplateSyntaxError

    try:
        template_environment().parse(config.model.chat_template)
    except TemplateSyntaxError as error:
        what = f"is no Jinja, line {error.lineno}: {error.message}"
        yield Problem("model.chat_template", what, "try it in transformers' apply_chat_template")


def template_environment() -> Any:
    """Return a Jinja environment that reads what transformers' own reads.

    Its tags beyond Jinja's: loop controls, and `generation`, which marks what an assistant says.
    """
    from jinja2 import Environment, nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        """Reads `{% generation %}...{% endgeneration %}` as what stands inside."""

        tags = {"generation"}  # noqa: RUF012 - as the base class has it

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            (tag,) = self.tags
            end = f"end{tag}"
            body = parser.parse_statements((f"name:{end}",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    return Environment(extensions=["jinja2.ext.loopcontrols", Generation], autoescape=True)


def adapter_targets(config: Config) -> Iterator[Problem]:
    """Refuse adapters where TRL cannot have them."""
    adapter = config.adapter
    if adapter.kind is AdapterKind.NONE or config.method.name is MethodName.ORPO:
        return
    if "lm_head" in adapter.target_modules:
        # SFTTrainer and DPOTrainer of TRL 1.16 compute the loss with a fused head.
        what = f"{config.method.name.value} computes its loss inside lm_head, and TRL refuses it"
        yield Problem("adapter.target_modules", what, "leave lm_head out")


def rented_gpus(config: Config) -> Iterator[Problem]:
    """Refuse full precision formats that the plan's own switches contradict, before the rent."""
    if config.pod.provider is not Provider.RUNPOD:
        return
    if config.trainer.fp16 and config.model.dtype == "bfloat16":
        what = "fp16 scaling does not work on weights that are bfloat16"
        yield Problem("trainer.fp16", what, "set trainer.bf16=true trainer.fp16=false")
    is_whole = config.adapter.kind is AdapterKind.NONE
    if config.trainer.fp16 and config.model.dtype == "float16" and is_whole:
        what = "the scaler of fp16 refuses gradients of weights that are float16 themselves"
        yield Problem("model.dtype", what, "set model.dtype=float32, or bf16 with bfloat16")
    if config.trainer.extra.get("fp16_full_eval") and config.model.dtype == "bfloat16":
        what = "evaluates bfloat16 weights in a format that ends at 65,504"
        yield Problem("trainer.extra.fp16_full_eval", what, "set bf16_full_eval instead")


ARGUMENT_RULES = (
    unknown_choices,
    refused_arguments,
    workers,
    quantized_twice,
    chat_template,
    adapter_targets,
    rented_gpus,
)
