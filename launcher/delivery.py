"""What a pod is started with, refused when it is too much or misnamed."""

import re
from collections.abc import Iterator

from podproof.compiler.delivery import Parcel, ReportTarget, parcel_of
from podproof.compiler.ir import PodScript
from podproof.compiler.limits import ENV_NAME, RESERVED_ENV, over_hard
from podproof.launcher.errors import OverLimit
from podproof.runtime.errors import Problem

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def wrap(
    script: PodScript, *, run_id: str, report: ReportTarget | None, boot_source: str
) -> Parcel:
    """Return what starts this script on a pod; raise OverLimit with everything that is too much.

    `boot_source` is the text of podproof.runtime.boot.
    """
    parcel = parcel_of(script, run_id=run_id, report=report, boot_source=boot_source)
    given = script.run.pod.env + script.run.pod.secrets
    problems = (*_bad_names(run_id, given), *over_hard(parcel.sizes))
    if problems:
        raise OverLimit(*problems)
    return parcel


def _bad_names(run_id: str, given: tuple[tuple[str, str], ...]) -> Iterator[Problem]:
    if not _RUN_ID.fullmatch(run_id):
        rule = "a run id has letters, digits, dots, dashes and underscores, a letter or digit first"
        yield Problem("run_id", f"{rule}; got {run_id!r}", "choose a plainer name")
    keys = [key for key, _ in given]
    for key in keys:
        if not ENV_NAME.fullmatch(key):
            yield Problem(f"pod.env.{key!r}", "is no name of a variable", "use letters, digits, _")
        if RESERVED_ENV.fullmatch(key):
            yield Problem(f"pod.env.{key}", "is a name that the pod sets itself", "rename it")
    for key in sorted({key for key in keys if keys.count(key) > 1}):
        yield Problem(f"pod.env.{key}", "is both in pod.env and pod.secrets", "drop one of them")
