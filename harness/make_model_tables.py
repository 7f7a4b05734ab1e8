"""Write the tables of harness/model_tables from wheels of transformers, without importing them.

    python -m podproof.harness.make_model_tables WHEEL...

A table says which model types there are, which of them are causal language models, what keys the
config of each of those takes, and which kinds of attention there are.
"""

import argparse
import ast
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TABLES = Path(__file__).parent / "model_tables"

_TYPES = (
    "transformers/models/auto/auto_mappings.py",
    "transformers/models/auto/configuration_auto.py",
)
_CAUSAL = "transformers/models/auto/modeling_auto.py"
_ATTENTION = "transformers/modeling_utils.py"
_CONFIGS = re.compile(
    r"transformers/(models/\w+/configuration_\w+|configuration_utils|modeling_rope_utils"
    r"|generation/configuration_utils)\.py"
)
# What every config takes: its own, and, as older files have them, those of generation.
_COMMON = ("PreTrainedConfig", "GenerationConfig")
# What such a model says when it is used as it is: it would see the tokens it has to predict.
_SEES_WHAT_FOLLOWS = b"add `is_decoder=True"


@dataclass(frozen=True)
class _ConfigClass:
    """A config class as it is written: its bases, its own keys, and its other names for some."""

    bases: tuple[str, ...]
    keys: frozenset[str]
    other_names: Mapping[str, str]


def main() -> int:
    """Write one table for each wheel named; return the exit code."""
    parser = argparse.ArgumentParser(description="Describe the models of transformers as tables.")
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    for wheel in parser.parse_args().wheels:
        path = TABLES / f"transformers-{wheel.name.split('-')[1]}.json"
        path.write_text(_written(described_models(wheel)), encoding="utf-8")
    return 0


def described_models(wheel: Path) -> dict[str, Any]:
    """Return the table of one wheel of transformers."""
    with zipfile.ZipFile(wheel) as files:
        types = {key: name for path in _TYPES for key, name in _config_names(files.read(path))}
        classes = dict(_config_classes(files))
        causal = _literal_pairs(files.read(_CAUSAL), "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")
        attention = _literal_keys(files.read(_ATTENTION), "_global_mapping")
        seeing = _seeing_what_follows(files, dict(causal))
    common = {key for name in _COMMON for key in _all_keys(name, classes)}
    keys = {kind: _all_keys(types[kind], classes) for kind, _ in causal if kind in types}
    return {
        "attention": sorted({"eager", *attention}),
        "common_keys": sorted(common),
        "config_keys": {kind: sorted(found - common) for kind, found in sorted(keys.items())},
        "no_causal_model": sorted(types.keys() - {kind for kind, _ in causal}),
        "other_names": _other_names(classes),
        "sees_what_follows": seeing,
    }


def _written(table: Mapping[str, Any]) -> str:
    """Return JSON with one line for each entry, so that a diff says what changed."""
    parts = []
    for name, value in table.items():
        if isinstance(value, dict):
            lines = [f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
            parts.append(f'"{name}": {{\n' + ",\n".join(lines) + "\n}")
        else:
            parts.append(f'"{name}": {json.dumps(value)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _config_names(text: bytes) -> list[tuple[str, str]]:
    """Return the config class of each model type, also of those that are added afterwards."""
    pairs = _literal_pairs(text, "CONFIG_MAPPING_NAMES")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "CONFIG_MAPPING_NAMES.update":
            pairs += list(ast.literal_eval(node.args[0]).items())
    return pairs


def _literal_pairs(text: bytes, name: str) -> list[tuple[str, str]]:
    """Return the pairs of every mapping of that name, as far as they are written out."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            found += [pair for item in ast.walk(node.value) for pair in _pair(item)]
    return found


def _pair(node: ast.AST) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Tuple(elts=[ast.Constant(value=str(key)), ast.Constant(value=str(value))]):
            yield key, value
        case ast.Dict(keys=[ast.Constant(value=str(key))], values=[ast.Constant(value=str(value))]):
            yield key, value
        case _:
            return


def _literal_keys(text: bytes, name: str) -> set[str]:
    return {
        str(key.value)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
        for key in getattr(node.value, "keys", ())
        if isinstance(key, ast.Constant)
    }


def _config_classes(files: zipfile.ZipFile) -> Iterator[tuple[str, _ConfigClass]]:
    for path in sorted(files.namelist()):
        if _CONFIGS.fullmatch(path):
            for node in ast.parse(files.read(path)).body:
                if isinstance(node, ast.ClassDef):
                    yield node.name, _config_class(node)


def _config_class(node: ast.ClassDef) -> _ConfigClass:
    keys: set[str] = set()
    other: dict[str, str] = {}
    for item in node.body:
        match item:
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                keys |= {name} if isinstance(item, ast.AnnAssign) else set()
                if name == "attribute_map" and item.value is not None:
                    other |= _names_in(item.value)
            case ast.FunctionDef():
                keys |= set(_keys_of(item))
            case _:
                continue
    bases = tuple(ast.unparse(base).rpartition(".")[2] for base in node.bases)
    return _ConfigClass(bases, frozenset(keys | other.keys()), other)


def _names_in(value: ast.expr) -> dict[str, str]:
    try:
        return {str(key): str(name) for key, name in ast.literal_eval(value).items()}
    except ValueError:
        return {}  # computed, so not known here


def _keys_of(function: ast.FunctionDef) -> Iterator[str]:
    """Yield what is set by name: arguments at the making, properties, and what is looked for."""
    if function.name in {"__init__", "__post_init__"}:
        yield from (argument.arg for argument in (*function.args.args, *function.args.kwonlyargs))
    if any(ast.unparse(item).endswith(".setter") for item in function.decorator_list):
        yield function.name
    for node in ast.walk(function):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="kwargs"), attr="pop" | "get"),
                args=[ast.Constant(value=str(key)), *_],
            ):
                yield key
            case _:
                continue


def _all_keys(name: str, classes: Mapping[str, _ConfigClass]) -> set[str]:
    """Return the keys of a config class and of its bases, none of them private."""
    own = classes.get(name)
    if own is None:
        return set()
    inherited = {key for base in own.bases for key in _all_keys(base, classes)}
    return {key for key in own.keys | inherited if not key.startswith("_") and key != "self"}


def _other_names(classes: Mapping[str, _ConfigClass]) -> dict[str, list[str]]:
    """Return each name that some config has for what others call by the first of its names."""
    found: dict[str, set[str]] = {}
    for config in classes.values():
        for usual, other in config.other_names.items():
            found.setdefault(other, set()).add(usual)
    return {name: sorted(usual) for name, usual in sorted(found.items())}


def _seeing_what_follows(files: zipfile.ZipFile, causal: Mapping[str, str]) -> list[str]:
    """Return the types whose causal model must be told that it is a decoder."""
    told: Sequence[bytes] = [
        files.read(path)
        for path in files.namelist()
        if re.fullmatch(r"transformers/models/\w+/modeling_\w+\.py", path)
    ]
    texts = [text for text in told if _SEES_WHAT_FOLLOWS in text]
    return sorted(
        kind
        for kind, name in causal.items()
        if any(re.search(rf"\bclass {name}\b".encode(), text) for text in texts)
    )


if __name__ == "__main__":
    raise SystemExit(main())
