"""What a config must satisfy so that its weights get somewhere, and stay there."""

import re
from collections.abc import Iterator

from podproof.compiler.ir import Provider
from podproof.compiler.schema import Config
from podproof.runtime.errors import Problem
from podproof.runtime.plan import DataSource, PublishTo

# The hub's own rule for a repository, without the old names that have no owner.
REPO_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][\w.-]*/(?!.*\.git$)\w([\w.-]*\w)?", re.ASCII)
REPO_ID_CHARS = 96


def published_folder(config: Config) -> Iterator[Problem]:
    """Ask for one plain name, which nothing else has, for the folder of the weights."""
    folder = config.publish.dir
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", folder):
        what = f"must be one plain folder name, got {folder!r}"
        yield Problem("publish.dir", what, "set publish.dir=delivered")
    if re.fullmatch(
        r"checkpoint-.*|quarantine|ranks|events\..*|.*\.(json|unfinished|former)", folder
    ):
        what = f"{folder!r} is a name the run itself uses beside it"
        yield Problem("publish.dir", what, "set publish.dir=delivered")


def published_on_the_hub(config: Config) -> Iterator[Problem]:
    """Ask for what the hub needs: a repository's name, and a token that stands in no script."""
    if config.publish.to is not PublishTo.HUB:
        return
    repo_id = config.publish.repo_id or ""
    if not REPO_ID.fullmatch(repo_id) or len(repo_id) > REPO_ID_CHARS:
        what = f"publish.to=hub needs owner/name, got {config.publish.repo_id!r}"
        yield Problem("publish.repo_id", what, "set publish.repo_id=your-name/your-model")
    if repo_id == config.model.name_or_path:
        what = f"{repo_id} is the model that is trained, which would be overwritten"
        yield Problem("publish.repo_id", what, "set publish.repo_id=your-name/your-model")
    if config.pod.provider is not Provider.LOCAL and "HF_TOKEN" not in config.pod.secrets:
        what = "publish.to=hub needs HF_TOKEN on the pod, a token that may write to the hub"
        way_out = "make a secret in RunPod's console, then +pod.secrets.HF_TOKEN=name_of_the_secret"
        yield Problem("pod.secrets", what, way_out)


def outlives_the_pod(config: Config) -> Iterator[Problem]:
    """Ask for a network volume, or for the hub and a disk to wait for it on."""
    pod = config.pod
    if pod.provider is Provider.LOCAL or pod.network_volume is not None:
        return
    if config.publish.to is not PublishTo.HUB:
        yield Problem(
            "pod.network_volume",
            "needs a value: checkpoints and weights are lost when the pod is terminated",
            "set pod.network_volume=<id of your volume>, which outlives the pod, or publish=hub",
        )
        return
    if pod.volume_gb == 0:
        what = "needs a value without a network volume: checkpoints must survive a restart"
        yield Problem("pod.volume_gb", what, "set pod.volume_gb=50")
    if config.data.source is not DataSource.HUB:
        what = "a pod without a network volume has no files of yours"
        yield Problem("data.source", what, "set data.source=hub, or pod.network_volume")
