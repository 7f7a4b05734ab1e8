"""Live one story again, and say what was wrong with it.

    python -m tests.crash METHOD [KIND[:LIMIT]@POINT ...]

One fault for each boot, as the failed test printed them. Without any, list the points there are.
"""

import sys
import tempfile
from pathlib import Path

from tests.crash.campaign import Campaign
from tests.crash.invariants import violations
from tests.crash.points import fault_from_text
from tests.crash.server import fork_server
from tests.crash.stories import Teller, write_scripts


def replay(method: str, *texts: str) -> int:
    """Print the story; return 1 when an invariant is broken."""
    with tempfile.TemporaryDirectory() as name, fork_server(Path(name)) as server:
        folder = Path(name)
        campaign = Campaign(Teller(server, write_scripts(folder), folder / "runs"), method)
        if not texts:
            say("\n".join(campaign.calm.told(1, "point")))
            return 0
        faults = [fault_from_text(text) for text in texts]
        story = campaign.teller.live(method, faults)
        broken = violations(story, campaign.calm)
    for number, boot in enumerate(story.boots, 1):
        say(f"--- boot {number} ended with {boot.code}\n{boot.said}")
    for event in story.events:
        say(f"{event.event_id} {event.kind} {event.step} {dict(event.body)}")
    say("\n".join(["---", *(broken or ["every invariant holds"])]))
    return 1 if broken else 0


def say(text: str) -> None:
    """Print, also when nobody reads to the end."""
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    raise SystemExit(replay(*sys.argv[1:]))
