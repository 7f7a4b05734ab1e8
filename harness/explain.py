"""What a training library refused, as a problem: which key of the config, what, and the way out."""

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from podproof.compiler.schema import METHODS, TrainerConfig
from podproof.runtime.errors import Problem
from podproof.runtime.plan import AdapterPlan, ModelPlan, Plan

_UNEXPECTED = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
_NO_MODULE = re.compile(r"No module named '?([\w.-]+)")
# What torch and transformers say of sizes that do not fit each other.
_SIZES = re.compile(
    r"must match the size of tensor|shapes? .*(invalid|cannot be multiplied|mismatch)"
    r"|validate_architecture|divisible by|must be a multiple of"
)
_FITTING_SIZES = "give sizes that fit each other, as a published model's config.json does"
_NO_KEY = "change what the message names; if that is nothing of yours, report it with this config"
_SHORTEST_KEY = 5  # `r` or `name` may stand in any sentence
_LONGEST_MESSAGE = 600


def explained(
    error: str, message: str, plan: Plan, modules: Sequence[str] = ()
) -> tuple[Problem, ...]:
    """Return the problem behind an exception of a library, by its class's name and its text.

    `modules` are the names of the model's linear layers, for a target that none of them has.
    """
    text = " ".join(message.split())[:_LONGEST_MESSAGE]
    unexpected = _UNEXPECTED.search(text)
    if unexpected is not None:
        where = key_of(unexpected[2], plan)
        return (Problem(where, f"{unexpected[1]} takes no such argument", "take it out"),)
    if "Target modules" in text and modules:
        return tuple(lacking_targets(plan.adapter.target_modules, modules))
    absent = _NO_MODULE.search(text) if error in {"ModuleNotFoundError", "ImportError"} else None
    if absent is not None:
        what = f"{absent[1]} is needed, and not installed here: {text}"
        return (Problem("pod.requirements", what, f"pip install {absent[1]}, to prove it here"),)
    where = _key_in(text, plan)
    way_out = f"change {where}, or take it out" if where != "trainer" else _NO_KEY
    is_ours = where != "trainer" and where.removeprefix("trainer.extra.") in {
        where,
        *plan.arguments,
    }
    if not is_ours and plan.model.config and _SIZES.search(text):
        where, way_out = "model.config", _FITTING_SIZES
    return (Problem(where, f"{error}: {text}", way_out),)


def lacking_targets(targets: Sequence[str], modules: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for each name that no module of the model has.

    >>> next(lacking_targets(["vproj"], ["q_proj", "v_proj"])).way_out
    'did you mean v_proj? its linear modules are q_proj, v_proj'
    """
    for target in targets:
        near = difflib.get_close_matches(target, modules, n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        what = f"the model has no module {target!r}"
        way_out = f"{guess}its linear modules are {', '.join(modules)}"
        yield Problem("adapter.target_modules", what, way_out)


def key_of(name: str, plan: Plan) -> str:
    """Return the config's key for an argument of a library, under the section that it is set in."""
    for section, kind in _sections(plan).items():
        if name in {field.name for field in dataclasses.fields(kind)}:
            return f"{section}.{name}"
    return f"trainer.extra.{name}"


def _sections(plan: Plan) -> Mapping[str, Any]:
    return {
        "method": METHODS[plan.method.value],
        "trainer": TrainerConfig,
        "adapter": AdapterPlan,
        "model": ModelPlan,
    }


def _key_in(text: str, plan: Plan) -> str:
    """Return the key of the first argument that a message names; `trainer` when it names none.

    One that the plan sets comes before one that stands in quotation marks of code.
    """
    names = {*plan.arguments, *(field.name for field in dataclasses.fields(AdapterPlan))}
    words = re.findall(r"\w+", text)
    named = [word for word in words if word in names and len(word) >= _SHORTEST_KEY]
    word = next(iter([*named, *re.findall(r"`(\w+)", text)]), None)
    return "trainer" if word is None else key_of(word, plan)
