"""Compile a Hydra config into one proven pod script, and launch it exactly once.

What a program of your own needs stands here; each name is imported when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podproof.compiler.lower import lower
    from podproof.compiler.read import Request, read
    from podproof.compiler.script import compile_run
    from podproof.harness.judgement import verify
    from podproof.harness.verdict import Cleared, Refused

_MODULES = {
    "Cleared": "harness.verdict",
    "Refused": "harness.verdict",
    "Request": "compiler.read",
    "compile_run": "compiler.script",
    "lower": "compiler.lower",
    "read": "compiler.read",
    "verify": "harness.judgement",
}

__all__ = ["Cleared", "Refused", "Request", "compile_run", "lower", "read", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
