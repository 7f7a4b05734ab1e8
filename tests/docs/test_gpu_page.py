"""The page of GPUs is what the table says."""

import subprocess
import sys
from pathlib import Path


def test_the_page_of_gpus_is_up_to_date() -> None:
    script = Path(__file__).parents[2] / "docs" / "make_gpu_table.py"

    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
