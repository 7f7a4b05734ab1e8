"""The real RunPod, as the command line reaches it."""

import os
from pathlib import Path

from podproof.launcher.client import PodClient
from podproof.launcher.runpod_sdk import RUNPOD_API_URL, RunPodSdk, find_api_key


def connect() -> PodClient:
    """Return the user's own account; raise AuthenticationFailed when no key is set."""
    base_url = os.environ.get("RUNPOD_API_BASE_URL", RUNPOD_API_URL)
    return RunPodSdk(find_api_key(os.environ, Path.home()), base_url=base_url)
