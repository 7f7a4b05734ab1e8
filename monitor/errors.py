"""What can go wrong between us and what is remembered."""

from podproof.runtime.errors import PodproofError


class UnknownRun(PodproofError):
    """No such run in the store."""

    error_id = "unknown-run"
    exit_code = 2


class StoreUnavailable(PodproofError):
    """The store cannot be opened, read or written."""

    error_id = "store-unavailable"
    exit_code = 1


class BadHistory(PodproofError):
    """What was given is no record of a run that a scorer could be replayed over."""

    error_id = "bad-history"
    exit_code = 2


class PlotUnavailable(PodproofError):
    """A plot cannot be drawn or written."""

    error_id = "plot-unavailable"
    exit_code = 1
