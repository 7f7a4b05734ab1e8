"""What a config must satisfy so that what a pod reports arrives, and tells no secret."""

import ipaddress
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from podproof.compiler.credentials import credential_in
from podproof.compiler.ir import Provider
from podproof.compiler.pins import INTEGRATION_PINS
from podproof.compiler.schema import Config
from podproof.runtime.errors import Problem
from podproof.runtime.plan import Sink

_TOKEN_WAY_OUT = "set PODPROOF_REPORT_TOKEN where podproof runs instead"  # noqa: S105 - its name


def integrations(config: Config) -> Iterator[Problem]:
    """Refuse integrations that podproof has no pin for."""
    for integration in config.report.integrations:
        if integration not in INTEGRATION_PINS:
            what = f"{integration!r} is not one of {', '.join(sorted(INTEGRATION_PINS))}"
            yield Problem("report.integrations", what, "set report.integrations=[]")


def address(config: Config) -> Iterator[Problem]:
    """Refuse an address that is none, that a rented pod cannot reach, or that holds a password."""
    report, url = config.report, config.report.url or ""
    if report.sink is not Sink.HTTP:
        return
    if not _is_web_address(url):
        what = f"sink=http needs an http(s) URL, got {report.url!r}"
        yield Problem("report.url", what, "set report.url=https://collector.example.org")
        return
    parts = urlsplit(url)
    if "@" in parts.netloc:
        what = "carries a password, which would stand in the script"
        yield Problem("report.url", what, _TOKEN_WAY_OUT)
    elif credential_in("", url) is not None:
        what = f"carries {credential_in('', url)}, which would stand in the script"
        yield Problem("report.url", what, _TOKEN_WAY_OUT)
    host = parts.hostname or ""
    if config.pod.provider is not Provider.LOCAL and _is_private(host):
        what = f"a rented pod cannot reach {host}, which is a host of this network"
        yield Problem("report.url", what, "set report.url=https://collector.example.org")


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket that is not closed, a port that is no number
        return False
    # The parser drops line breaks without a word; the client that posts would not.
    return is_whole and text.isprintable() and " " not in text


def _is_private(host: str) -> bool:
    if re.fullmatch(r"localhost|.*\.(localhost|local|internal|lan)|[^.:]+", host):
        return True
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:  # a name
        return False


REPORT_RULES = (integrations, address)
