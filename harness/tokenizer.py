"""The model's tokenizer, where it is at hand: no network, no transformers."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from podproof.harness.chat_template import ChatTemplate
from podproof.runtime.errors import BadPlan
from podproof.runtime.models import (
    DEFAULT_CHAT_TEMPLATE,
    TOKENIZER_BOS,
    TOKENIZER_EOS,
    model_location,
    train_tokenizer,
)
from podproof.runtime.plan import ModelInit, ModelPlan

_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",  # where older tokenizers name their special tokens
)

# The third special token of a tokenizer that the pod trains.
_PAD = "<|pad|>"


@dataclass(frozen=True)
class TokenizerFiles:
    """Where a tokenizer lies; `folder` is None for one that is trained on the rows."""

    folder: Path | None
    sha256: str


@dataclass(frozen=True)
class TokenCounter:
    """A tokenizer of the `tokenizers` library, with what transformers keeps beside it.

    `template` is None for a tokenizer without one.
    """

    tokenizer: Any
    template: ChatTemplate | None
    bos_token: str | None
    eos_token: str

    @property
    def bos_id(self) -> int | None:
        """Return the token that opens a sequence, or None."""
        return None if self.bos_token is None else self.tokenizer.token_to_id(self.bos_token)

    def encode(self, texts: list[str], *, add_special_tokens: bool = False) -> list[Any]:
        """Return an encoding for each text, with a length and `ids`."""
        encoded: list[Any] = self.tokenizer.encode_batch_fast(
            texts, add_special_tokens=add_special_tokens
        )
        return encoded

    def tokens_at(self, text: str, places: Iterable[int]) -> list[int]:
        """Return the numbers of the tokens that these characters of a text are in."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        found = (encoding.char_to_token(place) for place in places)
        return [token for token in found if token is not None]


def find_tokenizer(plan: ModelPlan) -> TokenizerFiles | str:
    """Return where the tokenizer lies, or in words why it is not at hand."""
    if find_spec("tokenizers") is None:
        return "the package tokenizers is not installed here"
    if plan.init is ModelInit.RANDOM:
        return TokenizerFiles(None, "")
    if plan.gguf_file is not None:
        return "it is inside a GGUF file, which the pod takes apart"
    folder = _folder(plan)
    if folder is None or not (folder / _FILES[0]).is_file():
        return f"{plan.name_or_path} has no tokenizer.json on this machine"
    return TokenizerFiles(folder, _digest(folder))


def load_tokenizer(files: TokenizerFiles, plan: ModelPlan, texts: Iterable[str]) -> TokenCounter:
    """Load the tokenizer; one without a folder is trained on `texts`, as the pod will train it."""
    if files.folder is None:
        tokens = {"bos_token": TOKENIZER_BOS, "eos_token": TOKENIZER_EOS, "pad_token": _PAD}
        template = ChatTemplate(plan.chat_template or DEFAULT_CHAT_TEMPLATE, tokens)
        return TokenCounter(train_tokenizer(plan, texts), template, TOKENIZER_BOS, TOKENIZER_EOS)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(files.folder / _FILES[0]))
    # A file may ask for padding or truncation; transformers leaves both to its caller.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    config = _config(files.folder)
    tokens = _special_tokens(config)
    text = plan.chat_template or _template_text(files.folder, config)
    own = None if text is None else ChatTemplate(text, tokens)
    return TokenCounter(tokenizer, own, tokens.get("bos_token"), tokens.get("eos_token", ""))


def special_tokens(files: TokenizerFiles | str) -> tuple[str, ...]:
    """Return the tokens that are special to a tokenizer; none for one that is not at hand."""
    if isinstance(files, str):
        return ()
    if files.folder is None:
        return TOKENIZER_BOS, TOKENIZER_EOS, _PAD
    content = json.loads((files.folder / _FILES[0]).read_text(encoding="utf-8"))
    added = content.get("added_tokens") or ()
    return tuple(token["content"] for token in added if token.get("special"))


def _folder(plan: ModelPlan) -> Path | None:
    try:
        place = Path(model_location(plan))
    except BadPlan:
        return None
    if place.is_dir():
        return place
    # A hub id: what an earlier download left in the cache, and nothing else.
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(plan.name_or_path, _FILES[0], revision=plan.revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _digest(folder: Path) -> str:
    whole = sha256()
    for name in _FILES:
        path = folder / name
        content = path.read_bytes() if path.is_file() else b""
        whole.update(f"{name} {len(content)} ".encode() + content)
    return whole.hexdigest()


def _config(folder: Path) -> Mapping[str, Any]:
    values: dict[str, Any] = {}
    for name in (_FILES[3], _FILES[1]):
        path = folder / name
        if path.is_file():
            values |= json.loads(path.read_text(encoding="utf-8"))
    return values


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens by name; a token is a text, or an object with its content."""
    named = {name: value for name, value in config.items() if name.endswith("_token")}
    texts = {
        name: value.get("content") if isinstance(value, dict) else value
        for name, value in named.items()
    }
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _template_text(folder: Path, config: Mapping[str, Any]) -> str | None:
    path = folder / _FILES[2]
    if path.is_file():
        return path.read_text(encoding="utf-8")
    given = config.get("chat_template")
    if isinstance(given, list):
        # Named variants: `default` is the one that is used when nothing is said.
        given = {item.get("name"): item.get("template") for item in given}.get("default")
    return given if isinstance(given, str) else None
