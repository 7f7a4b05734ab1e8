"""Every crash point of every method, in a first boot and in one that recovers: takes minutes."""

from collections.abc import Callable

import pytest

from tests.crash.campaign import Campaign, Outcome, sample
from tests.crash.points import Kind
from tests.crash.stories import METHODS

CampaignOf = Callable[[str], Campaign]
Noted = Callable[[Outcome], Outcome]

pytestmark = pytest.mark.slow

ALL = 10_000
# With no room for its events a boot waits half a minute for some before it ends.
MOST_OF = {kind: 8 if kind is Kind.FULL else ALL for kind in Kind}
WHILE_RECOVERING = (Kind.KILL, Kind.TERM, Kind.ERROR, Kind.TEAR)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_faulted_at_any_point_ends_as_if_nothing_had_happened(
    campaign: CampaignOf, noted: Noted, method: str, kind: Kind
) -> None:
    tried = campaign(method)

    outcome = noted(tried.try_all(kind, sample(tried.faults(kind), MOST_OF[kind])))

    assert outcome.broken == ""


@pytest.mark.parametrize("kind", WHILE_RECOVERING)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_faulted_at_any_point_of_its_recovery_recovers_all_the_same(
    campaign: CampaignOf, noted: Noted, method: str, kind: Kind
) -> None:
    tried = campaign(method)

    series = tried.faults_while_recovering(kind)
    outcome = noted(tried.try_all(f"{kind} while recovering", series))

    assert outcome.broken == ""


@pytest.mark.parametrize("method", METHODS)
def test_a_run_faulted_twice_ends_as_if_nothing_had_happened(
    campaign: CampaignOf, noted: Noted, method: str
) -> None:
    tried = campaign(method)

    outcome = noted(tried.try_all("two faults", tried.faults_twice(40)))

    assert outcome.broken == ""
