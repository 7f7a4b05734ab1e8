"""Write the tables of harness/api_tables from wheels, without importing what is inside them.

    python -m podproof.harness.make_api_tables WHEEL...

A table says which names a package exports, module by module, and which arguments its classes take,
with the source text of each default and, for dataclasses, of each type. It is read from the syntax
trees of the wheel's files, so a version can be described on a machine where it could not even be
installed.
"""

import argparse
import ast
import email
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TABLES = Path(__file__).parent / "api_tables"

# The classes whose arguments are described: the file's path in the wheel, and the class.
DESCRIBED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "trl": (
        ("trl/trainer/base_config.py", "_BaseConfig"),
        ("trl/trainer/sft_config.py", "SFTConfig"),
        ("trl/trainer/dpo_config.py", "DPOConfig"),
        ("trl/experimental/orpo/orpo_config.py", "ORPOConfig"),
        ("trl/trainer/sft_trainer.py", "SFTTrainer"),
        ("trl/trainer/dpo_trainer.py", "DPOTrainer"),
        ("trl/experimental/orpo/orpo_trainer.py", "ORPOTrainer"),
    ),
    "transformers": (
        ("transformers/training_args.py", "TrainingArguments"),
        ("transformers/trainer.py", "Trainer"),
        ("transformers/utils/quantization_config.py", "BitsAndBytesConfig"),
        ("transformers/utils/quantization_config.py", "GgufConfig"),
    ),
    "peft": (
        ("peft/config.py", "PeftConfigMixin"),
        ("peft/config.py", "PeftConfig"),
        ("peft/tuners/lora/config.py", "LoraConfig"),
    ),
    "accelerate": (("accelerate/accelerator.py", "Accelerator"),),
}
# The enumerations whose values are described, likewise.
ENUMERATED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "transformers": (
        ("transformers/training_args.py", "OptimizerNames"),
        ("transformers/trainer_utils.py", "SchedulerType"),
    ),
}
# Modules beside the package itself whose exports the script, or a class table, names.
EXPORTING: Mapping[str, tuple[str, ...]] = {
    "trl": ("trl.experimental.orpo",),
    "accelerate": ("accelerate.utils.memory",),
}


def main() -> int:
    """Write one table for each wheel named; return the exit code."""
    parser = argparse.ArgumentParser(description="Describe wheels as API tables.")
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    for wheel in parser.parse_args().wheels:
        table = described(wheel)
        path = TABLES / f"{table['package']}-{table['version']}.json"
        path.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


def described(wheel: Path) -> dict[str, Any]:
    """Return the table of one wheel; raise KeyError for a package that is not described."""
    package, version = wheel.name.split("-")[:2]
    with zipfile.ZipFile(wheel) as files:
        names = frozenset(files.namelist())
        classes = {
            name: _class_table(ast.parse(files.read(path)), name)
            for path, name in DESCRIBED[package]
            if path in names
        }
        modules = (package, *EXPORTING.get(package, ()))
        exports = {module: sorted(_exports(files, names, module)) for module in modules}
        values = {
            name: _values(ast.parse(files.read(path)), name)
            for path, name in ENUMERATED.get(package, ())
        }
        requires = _requires(files.read(f"{package}-{version}.dist-info/METADATA").decode())
    return {
        "package": package,
        "version": version,
        "requires": requires,
        "exports": exports,
        "classes": classes,
        "values": values,
    }


def _requires(metadata: str) -> dict[str, str]:
    """Return the version ranges of what a package needs, with torch and without other extras."""
    lines = email.message_from_string(metadata).get_all("Requires-Dist", [])
    markers = ("None", 'extra == "torch"')
    needed = [item for item in map(Requirement, lines) if str(item.marker) in markers]
    return {canonicalize_name(item.name): str(item.specifier) for item in needed if item.specifier}


def _values(tree: ast.Module, name: str) -> list[str]:
    """Return the text values of an enumeration, in its order."""
    node = next(item for item in tree.body if isinstance(item, ast.ClassDef) and item.name == name)
    values = (item.value for item in node.body if isinstance(item, ast.Assign))
    return [str(value.value) for value in values if isinstance(value, ast.Constant)]


def _class_table(tree: ast.Module, name: str) -> dict[str, Any]:
    """Return a class's bases, its arguments with their defaults, and if it takes any others."""
    node = next(item for item in tree.body if isinstance(item, ast.ClassDef) and item.name == name)
    made = next((item for item in node.body if _is_init(item)), None)
    arguments = dict(_init_arguments(made) if made else _fields(node))
    takes_others = isinstance(made, ast.FunctionDef) and made.args.kwarg is not None
    bases = [ast.unparse(base) for base in node.bases]
    types = {} if made else {item.target.id: ast.unparse(item.annotation) for item in _typed(node)}
    return {"bases": bases, "arguments": arguments, "types": types, "takes_others": takes_others}


def _is_init(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "__init__"


def _init_arguments(node: ast.stmt) -> Iterator[tuple[str, str]]:
    assert isinstance(node, ast.FunctionDef)
    given = node.args
    positional = given.args[1:]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
    pairs = [*zip(positional, [*defaults, *given.defaults], strict=True)]
    pairs += zip(given.kwonlyargs, given.kw_defaults, strict=True)
    for argument, default in pairs:
        yield argument.arg, "required" if default is None else ast.unparse(default)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Yield the fields of a dataclass: name, and the text of the default."""
    for item in _typed(node):
        yield item.target.id, _field_default(item.value)


def _typed(node: ast.ClassDef) -> Iterator[Any]:
    """Yield the fields of a dataclass, whose targets are plain names."""
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        if "ClassVar" not in ast.unparse(item.annotation):
            yield item


def _field_default(value: ast.expr | None) -> str:
    if value is None:
        return "required"
    if isinstance(value, ast.Call) and ast.unparse(value.func) in {"field", "dataclasses.field"}:
        named = {item.arg: item.value for item in value.keywords}
        default = named.get("default", named.get("default_factory"))
        return "required" if default is None else ast.unparse(default)
    return ast.unparse(value)


def _exports(files: zipfile.ZipFile, names: frozenset[str], module: str) -> set[str]:
    """Return every name that `from module import name` finds, lazy imports included."""
    folder = module.replace(".", "/")
    path = next((path for path in (f"{folder}/__init__.py", f"{folder}.py") if path in names), None)
    if path is None:
        return set()
    text = files.read(path)
    tree = ast.parse(text)
    found = {name for node in ast.walk(tree) for name in _bound(node)}
    # transformers and trl load lazily, from literals that list names by module, and transformers
    # also from the __all__ of each file.
    found |= {name for node in ast.walk(tree) for name in _listed(node)}
    if b"define_import_structure" in text:
        found |= set(_declared(files, names, folder))
    return {name for name in found if not name.startswith("_")}


def _bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name


def _listed(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Dict):
        for value in node.values:
            yield from _strings(value)
    elif isinstance(node, ast.Assign | ast.AugAssign):
        yield from _strings(node.value)


def _strings(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.List):
        items = (item.value for item in value.elts if isinstance(item, ast.Constant))
        yield from (item for item in items if isinstance(item, str) and item.isidentifier())


def _declared(files: zipfile.ZipFile, names: frozenset[str], folder: str) -> Iterator[str]:
    for name in sorted(names):
        if not re.fullmatch(rf"{folder}/models/.+\.py", name):
            continue
        text = files.read(name)
        if b"__all__" in text:
            yield from _all_of(ast.parse(text))


def _all_of(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            yield from _strings(node.value)


if __name__ == "__main__":
    raise SystemExit(main())
