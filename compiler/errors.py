"""The compiler's errors; the whole tree is drawn in podproof.runtime.errors."""

from podproof.runtime.errors import PodproofError


class BadConfig(PodproofError):
    """The config breaks a rule; carries every violation found, not only the first."""

    error_id = "bad-config"
    exit_code = 2


class NotBundleable(PodproofError):
    """A runtime module cannot become part of one file."""

    error_id = "not-bundleable"
    exit_code = 1


class BadScript(PodproofError):
    """A file that is not a pod script of ours, or is no longer the one that was compiled."""

    error_id = "bad-script"
    exit_code = 2
