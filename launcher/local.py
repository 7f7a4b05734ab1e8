"""The local pod: this machine as a provider, with the real SDK in front and processes behind."""

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from podproof.compiler.ir import Run
from podproof.launcher.client import PodClient
from podproof.launcher.errors import LaunchFailed
from podproof.launcher.launch import LOCAL_VOLUME
from podproof.launcher.runpod_sdk import RunPodSdk
from podproof.runtime.data import find_data_file
from podproof.runtime.errors import Problem
from podproof.runtime.plan import DataSource

# What of our own environment a training needs to find this machine's caches and devices. A rented
# pod has none of it, so nothing else is passed on.
_PASSED_ON = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "HF_HOME",
    "HF_TOKEN",
    "HF_ENDPOINT",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_DATASETS_CACHE",
    "HF_DATASETS_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "TOKENIZERS_PARALLELISM",
    "SSL_CERT_FILE",
)


@dataclass(frozen=True)
class LocalPods:
    """A provider that is this machine: its client, its network volume, where a pod prints to."""

    client: PodClient
    volume: Path
    log_path: Callable[[str], Path]

    def run_folder(self, run_id: str) -> Path:
        """Return where a run's script, log, data and output lie."""
        return self.volume / run_id


@contextmanager
def local_pods(
    home: Path, *, secret_values: Mapping[str, str] | None = None
) -> Iterator[LocalPods]:
    """Rent out this machine until the end of `with`; no pod outlives it.

    Volumes and logs stay below `home`. `secret_values` stand in for the secrets that a rented pod
    would get from RunPod, by the secret's name.
    """
    from podproof.launcher.emulator import Emulator

    api_key = secrets.token_hex(16)
    with Emulator(
        home, api_key=api_key, image_env=local_image_env(os.environ), secrets=secret_values
    ) as emulator:
        yield LocalPods(
            client=RunPodSdk(api_key, base_url=emulator.url, log_window_s=0.5),
            volume=emulator.volume_path(LOCAL_VOLUME),
            log_path=emulator.log_path,
        )


def local_image_env(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what stands for the image's environment: our interpreter, and what is passed on.

    PODPROOF_PYTHON makes the boot code run the script with the packages that are installed here.
    """
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join(part for part in (here, environ.get("PATH", os.defpath)) if part)
    passed_on = {name: environ[name] for name in _PASSED_ON if name in environ}
    return {**passed_on, "PATH": path, "PODPROOF_PYTHON": sys.executable}


def stage_data(run: Run, *, data_folder: Path, roots: tuple[Path, ...]) -> tuple[Path, ...]:
    """Copy the run's data files to where the script looks first; return the copies.

    `data_folder` is the pod's PODPROOF_DATA. Relative paths are looked up in `roots`, in order,
    and keep their layout unless they lead out of it, when the file's name is kept alone. Absolute
    paths stand as they are, for a local pod sees the same disk. Raises LaunchFailed for what is
    not there.
    """
    data = run.plan.data
    if data.source is DataSource.HUB:
        return ()
    named = {"data.path": data.path, "data.eval.path": data.eval.path}
    wanted = {where: path for where, path in named.items() if path}
    found = {where: find_data_file(path, roots) for where, path in wanted.items()}
    missing = tuple(
        Problem(where, f"there is no file {wanted[where]}", "correct the path")
        for where, file in found.items()
        if file is None
    )
    if missing:
        raise LaunchFailed(*missing)
    return tuple(
        _copy(file, data_folder / _inside(Path(wanted[where])))
        for where, file in found.items()
        if file is not None and not Path(wanted[where]).is_absolute()
    )


def _inside(path: Path) -> Path:
    """Return a relative path that stays inside the folder it is joined to."""
    return Path(path.name) if ".." in path.parts else path


def _copy(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target
