"""A sample of the crash points: a run may be faulted anywhere, and ends as if it had not been."""

from collections.abc import Callable

import pytest

from tests.crash.campaign import Campaign, Outcome, events_of, sample
from tests.crash.points import Kind, fault_from_text
from tests.crash.stories import METHODS

CampaignOf = Callable[[str], Campaign]
Noted = Callable[[Outcome], Outcome]

# All kinds for one method; what differs between methods is what their trainers do, not ours.
SAMPLES = [
    ("sft", Kind.KILL, 6),
    ("sft", Kind.TERM, 3),
    ("sft", Kind.ERROR, 5),
    ("sft", Kind.HOOK, 3),
    ("sft", Kind.TEAR, 3),
    pytest.param("sft", Kind.FULL, 1, marks=pytest.mark.slow),
    ("dpo", Kind.KILL, 2),
    ("dpo", Kind.TERM, 1),
    ("orpo", Kind.KILL, 2),
    ("orpo", Kind.TEAR, 1),
]
# Points at which something was wrong once.
FOUND = [
    "kill@on_train_end 8 #1",  # a run that was over trained one step more
    "term@on_pre_optimizer_step 7 #1",  # so did one that was stopped at its last step
    "term@on_step_end 2 #1",  # random numbers began anew where an evaluation was made up for
    "term@on_log 2 #1",  # so they did where an evaluation was left
    "term@write events.jsonl #1",  # exit code 0 without the last event, since writing was left
]


@pytest.mark.parametrize(("method", "kind", "most"), SAMPLES)
def test_a_run_faulted_at_some_points_ends_as_if_nothing_had_happened(
    campaign: CampaignOf, noted: Noted, method: str, kind: Kind, most: int
) -> None:
    tried = campaign(method)

    outcome = noted(tried.try_all(kind, sample(tried.faults(kind), most)))

    assert outcome.broken == ""


def test_a_run_faulted_where_something_was_wrong_once_ends_as_if_nothing_had_happened(
    campaign: CampaignOf, noted: Noted
) -> None:
    series = [(fault_from_text(text),) for text in FOUND]

    outcome = noted(campaign("sft").try_all("found before", series))

    assert outcome.broken == ""


def test_a_run_faulted_while_it_recovers_recovers_all_the_same(
    campaign: CampaignOf, noted: Noted
) -> None:
    tried = campaign("sft")

    series = sample(tried.faults_while_recovering(Kind.KILL), 3)
    outcome = noted(tried.try_all("kill while recovering", series))

    assert outcome.broken == ""


@pytest.mark.parametrize("method", METHODS)
def test_an_undisturbed_run_meets_the_same_events_again(campaign: CampaignOf, method: str) -> None:
    tried = campaign(method)

    again = tried.teller.live(method, is_recording=True)

    assert len(events_of(again)) > 60
    assert events_of(again) == events_of(tried.calm)


@pytest.mark.parametrize("method", METHODS)
def test_the_best_checkpoint_of_the_tiny_run_is_not_its_last(
    campaign: CampaignOf, method: str
) -> None:
    ending = campaign(method).calm.events[-1].body

    assert (ending["best_step"], ending["final_step"]) == (4, 8)
