"""The code inside a compiled script, loaded as a module without running anything of it.

What is proven is what rides in the pod: the scorer and callback are taken from the script's own
text, not from the modules it was cut from. Importing a script does nothing (the artefact gate
checks that first), and needs neither torch nor transformers.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

EMBEDDED_NAME = "podproof_embedded_script"


@contextmanager
def embedded(script_text: str) -> Iterator[Any]:
    """Yield the script as a module, registered only while in use; raise what its import raises.

    The type is Any: which names a script has is for the gates to find out.
    """
    module = ModuleType(EMBEDDED_NAME)
    sys.modules[EMBEDDED_NAME] = module
    try:
        # Executing it is the point: this is our own bundle, checked statically before.
        exec(compile(script_text, "pod_script.py", "exec"), module.__dict__)  # noqa: S102
        yield module
    finally:
        sys.modules.pop(EMBEDDED_NAME, None)
