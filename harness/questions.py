"""What each gate asks, in one line; the pages of docs/gates/ say the rest."""

from collections.abc import Mapping

QUESTIONS: Mapping[str, str] = {
    "config": "Is every key known, of its type, in range, and does it fit the others?",
    "artefact": "Is the script whole, self-contained, reproducible, and free of credentials?",
    "api": "Do the pinned libraries take these arguments and export these names?",
    "size": "Does what will travel to the pod keep every limit on the way?",
    "data": "Can the method train on every row at hand?",
    "memory": "Does the run fit into the memory of each GPU it may get?",
    "scorer": "Does the score keep its properties for whatever Hypothesis can find?",
    "dryrun": "Does the callback survive simulated runs, and choose the right checkpoint?",
    "regression": "Is the script still the one that was approved for this experiment?",
    "trainer": "Does the real trainer of the pinned libraries take what the script gives it?",
    "smoke": "Does the unmodified script train, score, reload and deliver on a small model?",
}


def page_of(gate: str) -> str:
    """Return the page of a gate, from the root of the repository."""
    return f"docs/gates/{gate}.md"
