"""The harness's errors; the whole tree is drawn in podproof.runtime.errors."""

from podproof.runtime.errors import PodproofError


class BadStream(PodproofError):
    """A file that is no stream of events that could be played to a callback."""

    error_id = "bad-stream"
    exit_code = 2
