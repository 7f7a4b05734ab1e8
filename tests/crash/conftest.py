"""One fork server and one campaign a method for the whole session; a table at its end."""

import os
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from tests.crash.campaign import Campaign, Outcome, table
from tests.crash.server import fork_server
from tests.crash.stories import Teller, write_scripts

ROW = "crash points"


@pytest.fixture(scope="session")
def teller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Teller]:
    folder = tmp_path_factory.mktemp("crash")
    with fork_server(folder) as server:
        yield Teller(server, write_scripts(folder), folder / "runs")


@pytest.fixture(scope="session")
def campaign(teller: Teller) -> Callable[[str], Campaign]:
    """Return the campaign of a method; stories run side by side, one for each core we may use."""
    workers = len(os.sched_getaffinity(0))
    return cache(lambda method: Campaign(teller, method, workers))


@pytest.fixture
def noted(record_property: Callable[[str, object], None]) -> Callable[[Outcome], Outcome]:
    """Put the outcome's row into the table at the end, and hand it on."""

    def note(outcome: Outcome) -> Outcome:
        record_property(ROW, outcome.row)
        return outcome

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rows = [value for each in reports for name, value in each.user_properties if name == ROW]
    if rows:
        terminalreporter.section("crash points")
        for line in table(rows):
            terminalreporter.write_line(line)
