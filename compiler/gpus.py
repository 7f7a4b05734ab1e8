"""The GPUs RunPod rents out, from a table: memory, speed, price, and what they can run."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from podproof.compiler.interval import Interval
from podproof.compiler.ir import Cloud

# The table's prices are of one day. Over the months before it they moved by less than this.
_PRICE_MAY_BE = Interval(0.7, 1.3)


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU; what the table does not know is None.

    `memory_gb` is what its maker states. GPU makers count 2^30 bytes as a GB, and so does this
    project where memory of a GPU is meant. `bf16_tflops` is the peak of its tensor cores without
    sparsity. Prices are USD per hour and GPU, on the table's day.
    """

    gpu_id: str
    display_name: str
    memory_gb: int
    compute_capability: float | None
    bf16_tflops: float | None
    bandwidth_gb_per_s: float | None
    secure_usd_per_h: float | None
    community_usd_per_h: float | None

    def usd_per_h(self, cloud: Cloud) -> Interval | None:
        """Return what an hour may cost by now; None where the table has no price.

        In the cloud `ALL` a pod may land in either.
        """
        clouds = {
            Cloud.SECURE: (self.secure_usd_per_h,),
            Cloud.COMMUNITY: (self.community_usd_per_h,),
            Cloud.ALL: (self.secure_usd_per_h, self.community_usd_per_h),
        }
        known = [price for price in clouds[cloud] if price is not None]
        if not known:
            return None
        return Interval(min(known) * _PRICE_MAY_BE.low, max(known) * _PRICE_MAY_BE.high)


@cache
def gpus() -> Mapping[str, Gpu]:
    """Return every GPU of the table by its RunPod id."""
    return {entry["gpu_id"]: Gpu(**entry) for entry in _table()["gpus"]}


def priced_on() -> str:
    """Return the day of the table's prices, as YYYY-MM-DD."""
    return str(_table()["priced_on"])


def sources() -> Mapping[str, str]:
    """Return where the table's figures are from, by their names."""
    return dict(_table()["sources"])


def nearest_gpu(name: str) -> str | None:
    """Return the id of a GPU that was probably meant; None when none comes close.

    One with the same number is closer than any other.

    >>> nearest_gpu("NVIDIA RTX 4090")
    'NVIDIA GeForce RTX 4090'
    """
    usual = [gpu for gpu in gpus().values() if "  " not in gpu.gpu_id]
    known = {gpu.display_name.lower(): gpu.gpu_id for gpu in reversed(usual)}
    known |= {gpu_id.lower(): gpu_id for gpu_id in gpus()}
    numbers = {word for word in name.lower().split() if any(map(str.isdigit, word))}
    numbered = [text for text in known if numbers & set(text.split())]
    near = difflib.get_close_matches(name.lower(), numbered, n=1, cutoff=0.0)
    near = near or difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return known[near[0]] if near else None


@cache
def _table() -> dict[str, Any]:
    path = resources.files("podproof.compiler") / "tables" / "gpus.json"
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table
