"""Why a launch failed; the tree is drawn in podproof.runtime.errors."""

from podproof.runtime.errors import PodproofError


class LaunchFailed(PodproofError):
    """No pod was launched, and none was left behind."""

    error_id = "launch-failed"
    exit_code = 1


class NoCapacity(LaunchFailed):
    """The provider has no machine of the kind asked for, and made no pod."""

    error_id = "no-capacity"
    exit_code = 1


class OverBudget(LaunchFailed):
    """No pod that could be had keeps the budget in money; none was made."""

    error_id = "over-budget"
    exit_code = 1


class AuthenticationFailed(LaunchFailed):
    """The provider refuses our key, or there is none; no pod was made."""

    error_id = "authentication-failed"
    exit_code = 1


class OverLimit(LaunchFailed):
    """The request breaks a limit of the provider; it was not sent."""

    error_id = "over-limit"
    exit_code = 1


class ProviderUnavailable(LaunchFailed):
    """The provider failed or did not answer; a pod that was being made may exist."""

    error_id = "provider-unavailable"
    exit_code = 1
