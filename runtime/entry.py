"""A podproof pod script: fine-tunes a language model, scores every checkpoint, keeps the best.

Run it where its dependencies are installed, or let uv install them from the block above:

    python pod_script.py                 train, here, into ./podproof-output
    uv run pod_script.py                 the same, dependencies included
    python pod_script.py --selfcheck     check the scorer and print the arithmetic; trains nothing

Environment: PODPROOF_OUTPUT (where to write), PODPROOF_DATA (where data files lie),
PODPROOF_REPORT_URL and PODPROOF_REPORT_TOKEN (where to report), PODPROOF_RUN_ID, PODPROOF_BOOT,
PODPROOF_DEADLINE_UNIX_S (when to be done); HF_TOKEN and HF_ENDPOINT (where to publish).

Exit codes: 0 done; 1 failed; 2 the plan or the arguments are wrong; 3 the data is wrong;
4 no checkpoint can be delivered; 5 not enough memory or disk; 6 out of time or money, the best so
far delivered; 7 delivered, but not published; 143 stopped by a signal, its last step saved.

The plan is the JSON at the very end; everything before it is the program, the same for every run.
"""

from typing import Any

from podproof.runtime.distributed import Rank
from podproof.runtime.hub import HubPublisher
from podproof.runtime.main import main
from podproof.runtime.predictions import attach_predictions

PLAN_JSON = "{}"

# What only some plans need, one line each: a script carries those entries that its plan asks for,
# and no others.
PARTS: dict[str, Any] = {
    "hub": HubPublisher,
    "predictions": attach_predictions,
    "ranks": Rank,
}

if __name__ == "__main__":
    raise SystemExit(main(PLAN_JSON, PARTS))
