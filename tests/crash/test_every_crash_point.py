"""Every crash point, in a first boot and in one that recovers: takes minutes, on few cores an hour.

Every method is killed at every point. What else can happen happens at every point of one method;
of the others, whose trainers differ and whose reports and checkpoints do not, a sample has to do.
"""

from collections.abc import Callable

import pytest

from tests.crash.campaign import Campaign, Outcome, sample
from tests.crash.points import Kind
from tests.crash.stories import METHODS

CampaignOf = Callable[[str], Campaign]
Noted = Callable[[Outcome], Outcome]

pytestmark = pytest.mark.slow

ALL, SOME = 10_000, 40
WHOLLY = "sft"
# With no room for its events a boot waits half a minute for some before it ends.
MOST_FULL = 8
WHILE_RECOVERING = (Kind.KILL, Kind.TERM, Kind.ERROR, Kind.TEAR)


def most_of(method: str, kind: Kind) -> int:
    """Return how many points of a kind are tried."""
    if kind is Kind.FULL:
        return MOST_FULL
    return ALL if method == WHOLLY or kind is Kind.KILL else SOME


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_faulted_at_any_point_ends_as_if_nothing_had_happened(
    campaign: CampaignOf, noted: Noted, method: str, kind: Kind
) -> None:
    tried = campaign(method)

    outcome = noted(tried.try_all(kind, sample(tried.faults(kind), most_of(method, kind))))

    assert outcome.broken == ""


@pytest.mark.parametrize("kind", WHILE_RECOVERING)
@pytest.mark.parametrize("method", METHODS)
def test_a_run_faulted_at_any_point_of_its_recovery_recovers_all_the_same(
    campaign: CampaignOf, noted: Noted, method: str, kind: Kind
) -> None:
    tried = campaign(method)

    series = sample(tried.faults_while_recovering(kind), ALL if method == WHOLLY else SOME)
    outcome = noted(tried.try_all(f"{kind} while recovering", series))

    assert outcome.broken == ""


@pytest.mark.parametrize("method", METHODS)
def test_a_run_faulted_twice_ends_as_if_nothing_had_happened(
    campaign: CampaignOf, noted: Noted, method: str
) -> None:
    tried = campaign(method)

    outcome = noted(tried.try_all("two faults", tried.faults_twice(40)))

    assert outcome.broken == ""
