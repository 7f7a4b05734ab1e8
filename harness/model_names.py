"""What the pinned transformers knows of a model: its type, the keys of its config, its attention.

Asked of tables (model_tables/, written by make_model_tables.py from the wheels).
"""

import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from podproof.compiler.model_config import config_at_hand
from podproof.runtime.errors import Problem
from podproof.runtime.plan import ModelInit, ModelPlan

# A kernel of the hub, as transformers tells it from a word of its own: org/repo, @revision, :name.
_KERNEL = re.compile(r"[^/:]+/[^/:]+(@[^/:]+)?(:[^/:]+)?")
# Below this likeness a key is somebody's own note; `num_layer` and `num_hidden_layers` are at 0.69.
_LIKE = 0.65
# What a model cannot be built as meant without. Other keys of other types are ignored harmlessly.
_SIZES = frozenset(
    {
        "head_dim",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
    }
)


@dataclass(frozen=True)
class ModelTable:
    """The models of one version of transformers.

    `config_keys` has every type with a causal language model, and what its config takes beside
    `common_keys`. `other_names` maps what some config calls a key to what others call it.
    """

    version: str
    attention: frozenset[str]
    common_keys: frozenset[str]
    config_keys: Mapping[str, frozenset[str]]
    no_causal_model: frozenset[str]
    other_names: Mapping[str, tuple[str, ...]]
    sees_what_follows: frozenset[str]

    @property
    def name(self) -> str:
        """Return the package and its version, for a message."""
        return f"transformers {self.version}"


def model_names(plan: ModelPlan, version: str) -> Iterator[Problem]:
    """Yield a problem for each name that transformers of that version does not have."""
    table = model_table(version)
    if table is None or plan.trust_remote_code:
        return  # a repository's own code brings types and attention of its own
    yield from _attention(plan, table)
    config = config_at_hand(plan)
    if config is not None:
        yield from _model_type(plan, config, table)
    if plan.init is ModelInit.RANDOM:
        yield from _config_keys(plan.config, table)


@cache
def model_table(version: str) -> ModelTable | None:
    """Return the table of a version of transformers; None when there is none."""
    path = resources.files("podproof.harness") / "model_tables" / f"transformers-{version}.json"
    if not path.is_file():
        return None
    fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return ModelTable(
        version=version,
        attention=frozenset(fields["attention"]),
        common_keys=frozenset(fields["common_keys"]),
        config_keys={kind: frozenset(keys) for kind, keys in fields["config_keys"].items()},
        no_causal_model=frozenset(fields["no_causal_model"]),
        other_names={name: tuple(usual) for name, usual in fields["other_names"].items()},
        sees_what_follows=frozenset(fields["sees_what_follows"]),
    )


def _attention(plan: ModelPlan, table: ModelTable) -> Iterator[Problem]:
    given = plan.attn_implementation
    if given is None or _KERNEL.fullmatch(given):
        return
    if given.removeprefix("paged|") not in table.attention and given not in table.attention:
        what = f"{table.name} has no attention {given!r}"
        yield Problem("model.attn_implementation", what, _nearest(given, table.attention))


def _model_type(plan: ModelPlan, config: Mapping[str, Any], table: ModelTable) -> Iterator[Problem]:
    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind:
        return  # the rules ask for one; a published config without it is named by its folder
    is_random = plan.init is ModelInit.RANDOM
    where = "model.config.model_type" if is_random else "model.name_or_path"
    if kind in table.no_causal_model:
        what = f"{kind!r} is no causal language model in {table.name}, and no other is trained here"
        yield Problem(where, what, "choose a model that writes text, such as a llama or a qwen3")
    elif kind not in table.config_keys:
        what = f"{table.name} knows no model_type {kind!r}"
        yield Problem(where, what, _nearest(kind, table.config_keys))
    elif kind in table.sees_what_follows and not config.get("is_decoder"):
        what = f"{kind!r} sees the tokens that follow, so that it learns to copy them"
        way_out = "set +model.config.is_decoder=true" if is_random else "choose a causal model"
        yield Problem(where, what, way_out)


def _config_keys(config: Mapping[str, Any], table: ModelTable) -> Iterator[Problem]:
    """Refuse what is likely meant as another key: transformers keeps any, and looks at none.

    A key that is like no other, or that another type of model has, may be a note of a config that
    was copied: it passes.
    """
    kind = str(config.get("model_type"))
    own = table.config_keys.get(kind)
    if own is None:
        return
    everywhere = frozenset().union(*table.config_keys.values())
    for key in sorted(config.keys() - own - table.common_keys):
        meant = [name for name in table.other_names.get(key, ()) if name in own & _SIZES]
        near = [] if key in everywhere else difflib.get_close_matches(key, own, n=1, cutoff=_LIKE)
        wanted = [name for name in (*meant, *near) if name not in config or name in near]
        if wanted and not key.startswith("_"):
            what = f"the config of {kind} has no such key, and {table.name} ignores it"
            yield Problem(f"model.config.{key}", what, f"did you mean {wanted[0]}?")


def _nearest(given: str, there: Collection[str]) -> str:
    near = difflib.get_close_matches(given, sorted(there), n=1)
    if near:
        return f"did you mean {near[0]}?"
    few = 12
    return f"it has {', '.join(sorted(there)[:few])}{', ...' if len(there) > few else ''}"
