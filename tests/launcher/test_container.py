"""Whatever happens to the emulator, its containers die with it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from podproof.launcher.client import LogSource
from podproof.launcher.emulator_container import Container, ContainerLog, ContainerSpec

WaitUntil = Callable[[Callable[[], bool]], None]
IsAlive = Callable[[int], bool]

# Runs an emulated container and waits; the test kills it.
EMULATOR_PROCESS = """
import sys, time
from pathlib import Path
from podproof.launcher.emulator_container import Container, ContainerLog, ContainerSpec

folder = Path(sys.argv[1])
spec = ContainerSpec(("sh", "-c", sys.argv[2]), {"PATH": sys.argv[3]}, folder, 0.2, 0.05, 1.0)
container = Container(spec, ContainerLog(folder / "log"))
time.sleep(600)
"""

# Neither the shell nor its child obeys SIGTERM; both say who they are.
STUBBORN_FAMILY = """
trap : TERM
(trap : TERM; echo $(exec sh -c 'echo $PPID') > child.pid; while true; do sleep 0.05; done) &
echo $$ > parent.pid
while true; do sleep 0.05; done
"""


def words_in(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def pid_in(path: Path) -> int:
    """Return the process id that was written to a file; 0 when none was yet."""
    return int((words_in(path) or ["0"])[0])


def test_a_container_and_its_children_die_with_a_killed_emulator(
    tmp_path: Path, wait_until: WaitUntil, is_alive: IsAlive
) -> None:
    emulator = subprocess.Popen(
        [sys.executable, "-c", EMULATOR_PROCESS, tmp_path, STUBBORN_FAMILY, os.environ["PATH"]]
    )
    wait_until(lambda: bool(pid_in(tmp_path / "parent.pid") and pid_in(tmp_path / "child.pid")))
    pids = [pid_in(tmp_path / "parent.pid"), pid_in(tmp_path / "child.pid")]
    assert [is_alive(pid) for pid in pids] == [True, True]

    emulator.send_signal(signal.SIGKILL)
    emulator.wait()

    wait_until(lambda: [is_alive(pid) for pid in pids] == [False, False])


def container(folder: Path, *argv: str) -> Container:
    spec = ContainerSpec(
        argv=argv,
        env={"PATH": os.environ["PATH"]},
        cwd=folder,
        grace_s=5.0,
        pause_s=0.02,
        longest_pause_s=0.1,
    )
    return Container(spec, ContainerLog(folder / "log"))


def test_a_container_that_obeys_ends_before_its_grace_does(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    sleeper = container(tmp_path, "sleep", "600")
    wait_until(lambda: sleeper.uptime_s is not None)

    sleeper.stop()
    sleeper.join()

    assert sleeper.uptime_s is None
    assert "exit code -15" in (tmp_path / "log").read_text()


def test_a_container_stopped_at_once_leaves_nothing(tmp_path: Path) -> None:
    sleeper = container(tmp_path, "sleep", "600")

    sleeper.stop()
    sleeper.join()

    assert sleeper.uptime_s is None


def test_what_a_command_leaves_running_dies_with_it(
    tmp_path: Path, wait_until: WaitUntil, is_alive: IsAlive
) -> None:
    leaver = container(tmp_path, "sh", "-c", "sleep 600 & echo $! > left.pid; exit 0")
    wait_until(lambda: leaver.starts >= 2)

    leaver.stop()
    leaver.join()

    wait_until(lambda: not is_alive(pid_in(tmp_path / "left.pid")))


def test_a_container_whose_supervisor_is_killed_is_killed_and_started_again(
    tmp_path: Path, wait_until: WaitUntil, is_alive: IsAlive
) -> None:
    sleeper = container(tmp_path, "sh", "-c", "echo $PPID $$ > pids; exec sleep 600")
    wait_until(lambda: len(words_in(tmp_path / "pids")) == 2)
    supervisor, command = (int(pid) for pid in words_in(tmp_path / "pids"))

    os.kill(supervisor, signal.SIGKILL)

    wait_until(lambda: sleeper.starts == 2)
    assert not is_alive(command)
    sleeper.stop()
    sleeper.join()


def test_a_container_that_the_machine_cannot_start_is_tried_again(
    tmp_path: Path, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nowhere/python")
        sleeper = container(tmp_path, "sleep", "600")
        wait_until(lambda: "error starting container" in (tmp_path / "log").read_text())

    wait_until(lambda: sleeper.uptime_s is not None)
    sleeper.stop()
    sleeper.join()


def test_a_log_gives_back_what_was_written(tmp_path: Path) -> None:
    log = ContainerLog(tmp_path / "new" / "log")

    log.write(LogSource.CONTAINER, "a line: with  blanks ")
    log.write(LogSource.SYSTEM, "")

    texts = [(line.source, line.text) for line in log.lines()]
    assert texts == [(LogSource.CONTAINER, "a line: with  blanks "), (LogSource.SYSTEM, "")]


@pytest.mark.parametrize(
    ("output", "text"),
    [(r"\377\376", "\ufffd\ufffd"), (r"a\rb", "a\rb"), (r"a\n", "a"), ("no end", "no end")],
)
def test_whatever_a_container_prints_is_one_log_line_for_each_of_its_lines(
    tmp_path: Path, wait_until: WaitUntil, output: str, text: str
) -> None:
    printer = container(tmp_path, "printf", output)

    wait_until(lambda: printer.starts >= 2)

    printer.stop()
    printer.join()
    assert [line.text for line in printer.log.lines()[:2]] == [
        text,
        "the container ended with exit code 0",
    ]


def test_a_log_that_cannot_be_written_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    log = ContainerLog(tmp_path / "logs" / "log")
    log.path.unlink()
    log.path.mkdir()

    log.write(LogSource.SYSTEM, "nobody will read this")

    assert log.lost_lines == 1
