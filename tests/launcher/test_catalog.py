"""What the emulator rents out, and at which price."""

import pytest

from podproof.launcher.catalog import pod_usd_per_h


def test_a_pod_costs_by_its_gpus() -> None:
    assert pod_usd_per_h("NVIDIA A40", 4, is_secure=True) == pytest.approx(1.8)
    assert pod_usd_per_h("NVIDIA A40", 1, is_secure=False) == pytest.approx(0.4)
    assert pod_usd_per_h(None, 0, is_secure=True) > 0
