"""Publishing on the hub: try until it is done, for as long as the weights need it.

Where the volume ends with the pod the weights exist nowhere else, so whatever fails is tried again
until the deadline, and the pod lives as long. Where they stay on the volume, half an hour will do,
and a refusal ends it.
"""

import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podproof.runtime.delivery import DeliveryRecord, report_delivery
from podproof.runtime.errors import BadPlan, NotPublished, Problem
from podproof.runtime.events import EventKind
from podproof.runtime.hub_repository import (
    HubRefusal,
    HubRepository,
    hub_answer,
    hub_causes,
)
from podproof.runtime.plan import Plan
from podproof.runtime.reporter import Report
from podproof.runtime.rescue import rescued

_HUB_CLIENT_ERRORS = 4
# 4xx that are no refusal: too slow, somebody else's commit, too early, too many.
_HUB_PASSING_CODES = frozenset({408, 409, 412, 425, 429})

_HUB_TRY_AGAIN = "start the script again in the same place; what was trained is not trained again"
_HUB_TOKEN_NEEDED = "HF_TOKEN must be a token that may write to publish.repo_id"  # noqa: S105


@dataclass(frozen=True)
class HubPace:
    """How long things take, in seconds.

    `check_s` is for the question before training, `tries_s` for all tries where the weights stay
    on the volume. `margin_s` is left before the deadline for the script's last events; a try gets
    `shortest_s` even so. Pauses double from PODPROOF_PAUSE_SECONDS up to `longest_pause_s`; a hub
    that asks for more gets up to `longest_asked_s`.
    """

    check_s: float = 60.0
    tries_s: float = 1800.0
    margin_s: float = 60.0
    shortest_s: float = 30.0
    longest_pause_s: float = 300.0
    longest_asked_s: float = 600.0

    def limit(self, environ: Mapping[str, str], now_unix_s: float) -> tuple[float, bool]:
        """Return until when to try, and whether the weights outlive the pod on its volume.

        >>> HubPace().limit({}, 1000.0)
        (2800.0, True)
        >>> lost = {"PODPROOF_VOLUME_ENDS_WITH_POD": "1", "PODPROOF_DEADLINE_UNIX_S": "9000"}
        >>> HubPace().limit(lost, 1000.0)
        (8940.0, False)
        """
        is_kept = environ.get("PODPROOF_VOLUME_ENDS_WITH_POD") != "1"
        deadline = environ.get("PODPROOF_DEADLINE_UNIX_S")
        if not deadline:
            return now_unix_s + self.tries_s, is_kept
        last = max(float(deadline) - self.margin_s, now_unix_s + self.shortest_s)
        return (min(last, now_unix_s + self.tries_s) if is_kept else last), is_kept

    def pause_s(self, environ: Mapping[str, str], attempt: int, asked_s: float) -> float:
        """Return how long to wait after this attempt, the first being 0.

        >>> [HubPace().pause_s({}, attempt, 0.0) for attempt in (0, 1, 20)]
        [5.0, 10.0, 300.0]
        >>> [HubPace().pause_s({}, 0, asked_s) for asked_s in (1.0, 60.0, 1e9)]
        [5.0, 60.0, 600.0]
        """
        first_s = float(environ.get("PODPROOF_PAUSE_SECONDS") or 5.0)
        growing_s = min(self.longest_pause_s, first_s * 2.0 ** min(attempt, 10))
        return max(growing_s, min(asked_s, self.longest_asked_s))


@dataclass(frozen=True)
class HubFault:
    """Why a try failed, in words that hold no secret; a refusal stays until somebody acts."""

    what: str
    way_out: str
    is_refusal: bool = False
    retry_after_s: float = 0.0


_HUB_CUT_OFF = HubFault("time ran out in the middle of it", _HUB_TRY_AGAIN)


class HubPublisher:
    """Publishes delivered weights to the plan's hub repository."""

    def __init__(
        self,
        plan: Plan,
        report: Report,
        notice: Callable[[str], None],
        pace: HubPace | None = None,
    ) -> None:
        """Take the plan, where events go, and whom to tell of failed tries."""
        self._pace = pace or HubPace()
        self._plan = plan
        self._repository = HubRepository(plan)
        self._report = report
        self._notice = notice
        self._told: set[str] = set()

    def check(self, *, is_fresh: bool) -> None:
        """Make the repository, and ask whether we may write to it; raise BadPlan when refused.

        Asked before training, since a refusal at its end costs the training. A hub that does not
        answer is no refusal, and a run that has checkpoints already goes on.
        """
        fault = self._within(time.time() + self._pace.check_s, self._repository.ask)
        if not isinstance(fault, HubFault):
            return
        if fault.is_refusal and is_fresh:
            raise BadPlan(Problem("publish.repo_id", fault.what, fault.way_out))
        self._tell(f"the hub cannot take weights yet: {fault.what}")

    def publish(self, record: DeliveryRecord) -> Mapping[str, Any]:
        """Publish the delivered folder; return repository, commit and address, and report them.

        Raise NotPublished when time is over or, where the weights stay on the volume, when the hub
        refuses.
        """
        until_unix_s, is_kept = self._pace.limit(os.environ, time.time())
        fault = _HUB_CUT_OFF
        for attempt in itertools.count():
            done = self._within(until_unix_s, lambda: self._repository.put(record))
            if not isinstance(done, HubFault):
                self._report(EventKind.PUBLISHED, body=done)
                return dict(done)
            # What went wrong before says more than that there was no time for another try.
            fault = fault if done is _HUB_CUT_OFF else done
            self._tell(f"not published yet: {fault.what}")
            pause_s = self._pace.pause_s(os.environ, attempt, fault.retry_after_s)
            left_s = 0.0 if fault.is_refusal and is_kept else until_unix_s - time.time()
            time.sleep(max(0.0, min(pause_s, left_s)))
            if left_s <= pause_s:
                raise NotPublished(_hub_last_words(fault, record, is_kept=is_kept))
        raise AssertionError("counting has no end")

    def rescue(self, output: Path, roots: tuple[Path, ...], why: str) -> None:
        """Publish the best so far of a run that failed, where the volume ends with the pod.

        The run fails all the same, so whatever goes wrong here is told and nothing more.
        """
        if os.environ.get("PODPROOF_VOLUME_ENDS_WITH_POD") != "1":
            return
        try:
            record = rescued(self._plan, output, roots, why, self._notice)
            report_delivery(record, self._report)
            self.publish(record)
        except Exception as error:
            self._tell(f"the best so far could not be saved from the pod: {error}")

    def _within(self, until_unix_s: float, work: Callable[[], Any]) -> Any:
        """Return what `work` returns, or a HubFault when it fails or takes longer.

        It works in a thread, since nothing else leaves an upload of hours when time is over, or
        when a signal says so.
        """
        results: list[Any] = []

        def run() -> None:
            try:
                results.append(work())
            except Exception as error:
                results.append(hub_fault(error))

        thread = threading.Thread(target=run, name="publishing", daemon=True)
        thread.start()
        while thread.is_alive() and time.time() < until_unix_s:
            thread.join(0.1)
        return results[0] if results else _HUB_CUT_OFF

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._notice(what)


def hub_fault(error: Exception) -> HubFault:
    """Return what went wrong, without the token and without addresses, which may be signed."""
    if isinstance(error, HubRefusal):
        return HubFault(str(error), error.way_out, is_refusal=True)
    answer = hub_answer(error)
    if answer is None:
        *_, first = hub_causes(error)
        return HubFault(f"{type(first).__name__}: {_hub_harmless(str(first))}", _HUB_TRY_AGAIN)
    status = int(answer.response.status_code)
    said = getattr(answer, "server_message", None) or str(answer)
    retry_after = str(answer.response.headers.get("retry-after", ""))
    is_refusal = status // 100 == _HUB_CLIENT_ERRORS and status not in _HUB_PASSING_CODES
    return HubFault(
        what=f"the hub answered {status}: {_hub_harmless(said)}",
        way_out=_HUB_TOKEN_NEEDED if is_refusal else _HUB_TRY_AGAIN,
        is_refusal=is_refusal,
        retry_after_s=float(retry_after) if retry_after.isdecimal() else 0.0,
    )


def _hub_harmless(text: str) -> str:
    from huggingface_hub import get_token

    without = text.replace(get_token() or "\n", "***")
    without = re.sub(r"hf_\w+", "hf_***", re.sub(r"\bhttps?://\S+", "...", without))
    return " ".join(without.split())[:300]


def _hub_last_words(fault: HubFault, record: DeliveryRecord, *, is_kept: bool) -> Problem:
    place = f"the weights lie in {record.path}" + ("" if is_kept else ", and end with the pod")
    return Problem("publish.repo_id", f"{fault.what}; {place}", fault.way_out)
