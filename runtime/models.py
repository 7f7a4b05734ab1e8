"""The model and its tokenizer: loaded, or built from nothing, and what LoRA adds to them."""

import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podproof.runtime.errors import BadPlan, Problem
from podproof.runtime.plan import AdapterKind, AdapterPlan, ModelInit, ModelPlan

_MODEL_PACKAGE_PREFIX = "package:"
TOKENIZER_BOS, TOKENIZER_EOS, _TOKENIZER_PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
_TOKENIZER_SMALLEST = 256 + 3  # every byte, and the three tokens above

# ChatML. The generation marks tell TRL which tokens are the assistant's, the closing one included,
# so that `assistant_only_loss` works with it. A turn may call tools and say nothing.
DEFAULT_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] or '' }}"
    "{% if message['tool_calls'] %}{{ message['tool_calls'] | tojson }}{% endif %}"
    "{{ '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ (message['content'] or '') + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class LoadedModel:
    """A model of transformers and the tokenizer that goes with it."""

    model: Any
    tokenizer: Any


def load_model(
    plan: ModelPlan,
    adapter: AdapterKind,
    *,
    seed: int,
    texts: Iterable[str],
    extra: Mapping[str, Any],
) -> LoadedModel:
    """Return the model and tokenizer of the plan, on the CPU unless it is quantized.

    `texts` are those a new tokenizer is trained on (`init=random`); `extra` are further keyword
    arguments of `from_pretrained`. The same plan, seed and texts give the same weights and
    tokens. Raises BadPlan for a model package or GGUF file that is not there.
    """
    if plan.init is ModelInit.RANDOM:
        return _model_from_nothing(plan, seed, texts)
    return _model_pretrained(plan, adapter, extra)


def model_location(plan: ModelPlan) -> str:
    """Return the path or hub id to load from; `package:NAME` is the folder of that package.

    The package is found, not imported. Raises BadPlan when it, or its GGUF file, is missing.
    """
    if not plan.name_or_path.startswith(_MODEL_PACKAGE_PREFIX):
        return plan.name_or_path
    package = plan.name_or_path.removeprefix(_MODEL_PACKAGE_PREFIX)
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        what = f"the package {package!r} is not installed in this Python"
        raise BadPlan(Problem("model.name_or_path", what, "add it to pod.requirements"))
    folder = Path(next(iter(spec.submodule_search_locations)))
    if plan.gguf_file is not None and not (folder / plan.gguf_file).is_file():
        there = ", ".join(sorted(path.name for path in folder.glob("*.gguf"))) or "none"
        what = f"{package} holds no {plan.gguf_file!r}"
        raise BadPlan(Problem("model.gguf_file", what, f"its GGUF files: {there}"))
    return str(folder)


def lora_config(plan: AdapterPlan) -> Any:
    """Return PEFT's LoraConfig for the adapter, or None when every weight is trained."""
    if plan.kind is AdapterKind.NONE:
        return None
    from peft import LoraConfig

    # PEFT knows `all-linear` as a word of its own, and takes any list as names of modules.
    targets: str | list[str] = list(plan.target_modules)
    if plan.target_modules == ("all-linear",):
        targets = "all-linear"
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=plan.r,
        lora_alpha=plan.lora_alpha,
        lora_dropout=plan.lora_dropout,
        target_modules=targets,
        bias=plan.bias,
        modules_to_save=list(plan.modules_to_save) or None,
    )


def _model_from_nothing(plan: ModelPlan, seed: int, texts: Iterable[str]) -> LoadedModel:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    tokenizer = _tokenizer_from_nothing(plan, texts)
    config = AutoConfig.for_model(**plan.config)
    config.vocab_size = len(tokenizer)
    config.bos_token_id = tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    set_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, plan.dtype))
    return LoadedModel(model, tokenizer)


def _tokenizer_from_nothing(plan: ModelPlan, texts: Iterable[str]) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(plan, texts),
        bos_token=TOKENIZER_BOS,
        eos_token=TOKENIZER_EOS,
        pad_token=_TOKENIZER_PAD,
    )
    tokenizer.chat_template = plan.chat_template or DEFAULT_CHAT_TEMPLATE
    return tokenizer


def train_tokenizer(plan: ModelPlan, texts: Iterable[str]) -> Any:
    """Train a byte-level BPE tokenizer: any text can be written in it, so none is unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=max(plan.tokenizer_vocab_size or 0, _TOKENIZER_SMALLEST),
        special_tokens=[_TOKENIZER_PAD, TOKENIZER_BOS, TOKENIZER_EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The roles and line ends of the chat template are words of every row, so they are learnt too.
    bpe.train_from_iterator(_tokenizer_texts(texts), trainer=trainer)
    return bpe


def _tokenizer_texts(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield f"user\n{text}\nassistant\n"


def _model_pretrained(
    plan: ModelPlan, adapter: AdapterKind, extra: Mapping[str, Any]
) -> LoadedModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    location = model_location(plan)
    options = _model_source_options(plan)
    load_options = {**options, **_model_load_options(plan, adapter), **extra}
    model = AutoModelForCausalLM.from_pretrained(location, **load_options)
    if plan.gguf_file is not None:
        _name_model(model, plan.name_or_path)
    tokenizer = AutoTokenizer.from_pretrained(location, **options)
    if plan.chat_template is not None:
        tokenizer.chat_template = plan.chat_template
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LoadedModel(model, tokenizer)


def _model_source_options(plan: ModelPlan) -> dict[str, Any]:
    options: dict[str, Any] = {"trust_remote_code": plan.trust_remote_code}
    if plan.revision is not None:
        options["revision"] = plan.revision
    if plan.gguf_file is not None:
        options["gguf_file"] = plan.gguf_file
    return options


def _model_load_options(plan: ModelPlan, adapter: AdapterKind) -> dict[str, Any]:
    options: dict[str, Any] = {"dtype": plan.dtype}
    if plan.attn_implementation is not None:
        options["attn_implementation"] = plan.attn_implementation
    if adapter is AdapterKind.QLORA and plan.gguf_file is not None:
        what = "the weights of a GGUF file cannot be quantized again"
        raise BadPlan(Problem("adapter.kind", what, "set adapter.kind=lora"))
    if adapter is AdapterKind.QLORA:
        options |= _quantized_options()
    if plan.gguf_file is not None:
        options["quantization_config"] = _gguf_options()
    return options


def _quantized_options() -> dict[str, Any]:
    """Return the settings of the QLoRA paper: NF4, its constants quantized again, bf16 compute."""
    import torch
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    # Quantizing happens on the GPU; a launcher gives each process one of its own by this number.
    gpu = int(os.environ.get("LOCAL_RANK", "0"))
    return {"quantization_config": quantization, "device_map": {"": gpu}}


def _gguf_options() -> Any:
    from transformers import GgufConfig

    # Packed weights cannot be trained, not even beneath an adapter.
    return GgufConfig(dequantize=True)


def _name_model(model: Any, name: str) -> None:
    """Name the model by what was asked for, not by what its GGUF file calls itself.

    Every checkpoint of an adapter names its base model, and should name one that can be found.
    """
    model.config._name_or_path = name  # noqa: SLF001  # transformers offers no other way
    model.name_or_path = name
