"""What the launcher costs before anything is launched."""

import subprocess
import sys

import pytest

HEAVY = "{'runpod', 'requests', 'uvicorn', 'starlette', 'graphql', 'httpx', 'torch'}"


@pytest.mark.parametrize(
    "module", ["launch", "watch", "local", "runpod_sdk", "delivery", "container"]
)
def test_importing_the_launcher_loads_nothing_heavy(module: str) -> None:
    program = f"import sys, podproof.launcher.{module}; print({HEAVY} & sys.modules.keys())"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert loaded.stdout.decode().strip() == "set()"
