"""The first program on the pod: unpack the script, run it, restart it, and end the pod.

It travels by itself in the variable PS_BOOT, before anything of ours is on the pod, and so needs
nothing but Python 3.8 and its standard library. A pod restarts a command that exits, for ever, and
bills for it; so this program never just exits. It leaves in one of two ways: it was told to stop,
or it asked for the end of its own pod and was ended.

Whatever goes wrong in here, a full volume or a damaged file included, leads to the second. Nothing
is done before the start is counted on the volume: one that is killed in the middle was one of few.

In the run's folder on the volume:
    boots           the starts so far, one line each with its time in Unix seconds
    started         the first start in Unix seconds; restarts do not extend the run's time
    pod_script.py   the script, its sha256 checked
    log.txt         everything the script printed, and what is said here
    over            the exit code after which no restart can help
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import IO, Any

# Done, a bad plan, bad data, nothing to deliver, no memory or disk, out of time or money, not
# published after all tries: the same script would end the same way again.
CODES_WITHOUT_RESTART = frozenset({0, 2, 3, 4, 5, 6, 7})
# On the wire these five stand for those of base85 that a shell or a template would act on.
BASE85_OF_WIRE = str.maketrans(",./:[", "!$`{}")
TOLD_TO_STOP = 143  # what a command that obeyed SIGTERM exits with
GRACE_S = 60.0  # from SIGTERM to SIGKILL at the deadline: time to save, or to deliver what there is
LAST_SEQ = 2**31 - 1  # the number of our one event in a boot, behind all of the script's


def main(environ: Mapping[str, str]) -> int:
    """Run the script to its end, then end the pod; return only when told to stop."""
    child = Child(Log())
    signal.signal(signal.SIGTERM, child.stop)
    signal.signal(signal.SIGINT, child.stop)
    try:
        last_words = run_to_the_end(environ, child)
    except Exception as error:  # a pod that cannot run its script must not go on costing money
        what = f"the pod could not run its script: {type(error).__name__}: {error}"
        last_words = failed(what, child.boot)
    if child.is_told_to_stop:
        return TOLD_TO_STOP
    if last_words:
        report_ending(environ, last_words, child.log)
    end_pod(environ, child.log)
    return 0


def run_to_the_end(environ: Mapping[str, str], child: Child) -> Mapping[str, Any]:
    """Start the script until it is over or told to stop; return how the run ends, if not by it."""
    orders = Orders(environ)
    while not (orders.folder / "over").exists():
        boot = child.boot = orders.count_boot()
        if boot > 1 + orders.max_restarts:
            return failed(f"gave up after {orders.max_restarts} restarts", boot)
        if orders.seconds_left() <= 0:
            reason = f"out of {orders.limit} after {orders.max_seconds:.0f} s"
            return {"kind": f"out_of_{orders.limit}", "body": {"reason": reason}, "boot": boot}
        child.log.keep_in(orders.folder / "log.txt")
        child.log.say(f"start {boot} of at most {1 + orders.max_restarts}")
        put_whole(orders.folder / "pod_script.py", unpack_script(environ))
        code = child.run(script_command(environ), orders.script_environ(environ, boot), orders)
        child.log.say(f"the script ended with exit code {code}")
        if code in CODES_WITHOUT_RESTART:
            put_whole(orders.folder / "over", str(code))
        elif child.is_told_to_stop:
            break
        else:
            time.sleep(orders.pause_s * boot)
    return {}


def failed(error: str, boot: int) -> Mapping[str, Any]:
    """Return what is special in the event that says what went wrong."""
    return {"kind": "failed", "body": {"error": error, "problems": []}, "boot": boot}


def unpack_script(environ: Mapping[str, str]) -> str:
    """Join, decode and check the script; raise ValueError unless it is the one that was sent."""
    import bz2  # here, where its absence is caught: a hand-built Python may lack it

    chunks = [environ[f"PS_{number:02d}"] for number in range(int(environ["PS_N"]))]
    script = bz2.decompress(base64.b85decode("".join(chunks).translate(BASE85_OF_WIRE)))
    sha256 = hashlib.sha256(script).hexdigest()
    if sha256 != environ["PS_SHA"]:
        raise ValueError(f"the script arrived with sha256 {sha256}, not {environ['PS_SHA']}")
    return script.decode()


def script_command(environ: Mapping[str, str]) -> list[str]:
    """Return how to run the script: by the image's interpreter, else by uv from its own pins."""
    if "PODPROOF_PYTHON" in environ:
        return [environ["PODPROOF_PYTHON"], "pod_script.py"]
    if shutil.which("uv"):
        return ["uv", "run", "--script", "pod_script.py"]
    # Debian's Python refuses to install beside its own packages unless told so. A failure shows
    # when uv is called: it counts as a failed start, and is tried again.
    subprocess.call(
        [sys.executable, "-m", "pip", "install", "--quiet", "uv"],
        env={**environ, "PIP_BREAK_SYSTEM_PACKAGES": "1"},
    )
    return [sys.executable, "-m", "uv", "run", "--script", "pod_script.py"]


class Orders:
    """What the launcher asked for, and what is kept on the volume from one start to the next."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.folder = run_folder(environ)
        self.max_seconds = float(environ["PODPROOF_MAX_SECONDS"])
        self.max_restarts = int(environ["PODPROOF_MAX_RESTARTS"])
        self.limit = environ.get("PODPROOF_LIMIT", "time")
        self.pause_s = first_pause_s(environ)
        self.folder.mkdir(parents=True, exist_ok=True)

    def seconds_left(self) -> float:
        """Return the time left, counted from the first start of all.

        A clock that was set back gives no more than there was at first.
        """
        started = self.folder / "started"
        if not started.exists():
            put_whole(started, str(time.time()))
        try:
            first_s = float(started.read_text())
        except ValueError:
            first_s = started.stat().st_mtime
        return min(self.max_seconds, first_s + self.max_seconds - time.time())

    def count_boot(self) -> int:
        """Count one more start of the script; the first is 1.

        A line more, since that fits on a full volume where a new file does not.
        """
        line = f"{time.time():.0f}\n".encode()
        with (self.folder / "boots").open("a+b", buffering=0) as boots:
            if boots.write(line) != len(line):
                raise OSError("the volume is full: this start cannot be counted")
            os.fsync(boots.fileno())
            boots.seek(0)
            return boots.read().count(b"\n")

    def script_environ(self, environ: Mapping[str, str], boot: int) -> dict[str, str]:
        """Return what the script sees: not its own text again, nor the key to the pod."""
        kept = {key: value for key, value in environ.items() if not key.startswith("PS_")}
        kept.pop("RUNPOD_API_KEY", None)
        return {
            "UV_CACHE_DIR": str(self.folder.parent / ".cache" / "uv"),
            "PYTHONUNBUFFERED": "1",
            **kept,
            "PODPROOF_BOOT": str(boot),
            "PODPROOF_DEADLINE_UNIX_S": f"{time.time() + self.seconds_left():.3f}",
            "PODPROOF_OUTPUT": str(self.folder / "output"),
            "PODPROOF_DATA": str(self.folder / "data"),
        }


class Log:
    """What is printed goes to the pod's log, which dies with the pod, and to the volume."""

    def __init__(self) -> None:
        self.streams: list[IO[bytes]] = [sys.stdout.buffer]
        self.kept_in: Path | None = None

    def keep_in(self, path: Path) -> None:
        """Write to this file too, from now on; a volume without room is no reason to stop."""
        if self.kept_in is None:
            try:
                self.streams.append(path.open("ab", buffering=0))
                self.kept_in = path
            except OSError as error:
                self.say(f"no log on the volume: {error}")

    def write(self, output: bytes) -> None:
        """Write everywhere; a full volume or a closed terminal must not stop a training."""
        for stream in self.streams:
            try:
                stream.write(output)
                stream.flush()
            except OSError:
                continue

    def say(self, text: str) -> None:
        """Write one line of our own."""
        self.write(f"[boot] {text}\n".encode())

    def copy(self, pipe: IO[bytes]) -> None:
        """Write what comes, as it comes: a progress bar has no line ends to wait for."""
        with pipe:
            while piece := os.read(pipe.fileno(), 65536):
                self.write(piece)


class Child:
    """The script while it runs; it hears of every request to stop."""

    def __init__(self, log: Log, grace_s: float = GRACE_S) -> None:
        self.log = log
        self.grace_s = grace_s
        self.process: subprocess.Popen[bytes] | None = None
        self.boot = 1
        self.is_starting = False
        self.is_told_to_stop = False

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """Pass SIGTERM or SIGINT on as SIGTERM; leave at once when no script is running."""
        self.is_told_to_stop = True
        if self.process is not None:
            self.process.terminate()
        elif not self.is_starting:
            raise SystemExit(TOLD_TO_STOP)

    def run(self, command: list[str], environ: Mapping[str, str], orders: Orders) -> int:
        """Run a command and return its exit code; out of time, ask it to stop, then make it."""
        limit_s, self.is_starting = orders.seconds_left(), True
        process = subprocess.Popen(
            command,
            env=environ,
            cwd=orders.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.process, self.is_starting = process, False
        if self.is_told_to_stop:  # between these two lines
            process.terminate()
        reader = threading.Thread(target=self.log.copy, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            return self._wait(process, limit_s)
        finally:
            self.process = None
            reader.join(5)  # not for ever: a worker that outlives the script keeps the pipe open

    def _wait(self, process: subprocess.Popen[bytes], limit_s: float) -> int:
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.log.say(f"out of time: SIGTERM now, SIGKILL in {self.grace_s:.0f} s")
            process.terminate()
        try:
            return process.wait(self.grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def report_ending(environ: Mapping[str, str], words: Mapping[str, Any], log: Log) -> None:
    """Send one last event, three tries at most; a launcher without a sink hears nothing."""
    log.say(words["body"].get("error") or words["body"]["reason"])
    if not {"PODPROOF_REPORT_URL", "PODPROOF_RUN_ID"} <= environ.keys():
        return
    try:
        url, token = environ["PODPROOF_REPORT_URL"], environ.get("PODPROOF_REPORT_TOKEN", "")
        batch = {"job_id": environ["PODPROOF_RUN_ID"], "events": [last_event(environ, words)]}
        request = authorised("POST", f"{url.rstrip('/')}/rpc/ingest_events", token, batch)
        for pause_s in itertools.islice(pauses_s(environ), 3):
            if answer(request, log) is not None:
                return
            time.sleep(pause_s)
    except Exception as error:  # nobody hears of it, and the pod still has to end
        log.say(f"cannot report: {type(error).__name__}")


def last_event(environ: Mapping[str, str], words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event; its number is one that no script counts up to."""
    run_id = environ["PODPROOF_RUN_ID"]
    return {
        "event_id": f"{run_id}-{words['boot']}-{LAST_SEQ}",
        "run_id": run_id,
        "seq": LAST_SEQ,
        "time_unix_s": time.time(),
        "step": None,
        "epoch": None,
        **words,
    }


def end_pod(environ: Mapping[str, str], log: Log) -> None:
    """Ask for the end of this pod, by every way there is, for as long as we are here to ask."""
    pod_id = environ.get("RUNPOD_POD_ID")
    if not pod_id:
        log.say("this is no pod: nothing to end")
        return
    for pause_s in pauses_s(environ):
        log.say("asking for the end of this pod")
        try:
            ask_for_the_end(environ, pod_id, log)
        except Exception as error:  # if we left now, the container would start again
            log.say(f"cannot ask: {type(error).__name__}")
        time.sleep(pause_s)


def ask_for_the_end(environ: Mapping[str, str], pod_id: str, log: Log) -> None:
    """Ask once: by GraphQL, else by REST, else by RunPod's own tool."""
    key = environ.get("RUNPOD_API_KEY", "")
    url = environ.get("RUNPOD_API_BASE_URL", "https://api.runpod.io")
    mutation = f"mutation {{ podTerminate(input: {{ podId: {json.dumps(pod_id)} }}) }}"
    reply = answer(authorised("POST", f"{url}/graphql", key, {"query": mutation}), log)
    if reply is not None and b'"errors"' not in reply:
        return
    if answer(authorised("DELETE", f"{url}/v2/pods/{pod_id}", key), log) is None:
        by_runpodctl(pod_id)


def by_runpodctl(pod_id: str) -> None:
    """Ask through the tool that RunPod puts into its pods, where it is."""
    runpodctl = shutil.which("runpodctl")
    if runpodctl:
        subprocess.call([runpodctl, "remove", "pod", pod_id])


def authorised(method: str, url: str, key: str, body: Any = None) -> urllib.request.Request:
    """Return a request that carries a key; some hosts turn away urllib's own User-Agent."""
    headers = {"Authorization": f"Bearer {key}", "User-Agent": "podproof-boot"}
    content = None if body is None else json.dumps(body).encode()
    if content:
        headers["Content-Type"] = "application/json"
    return urllib.request.Request(  # noqa: S310 - the launcher chose the URL
        url, content, headers, method=method
    )


def answer(request: urllib.request.Request, log: Log) -> bytes | None:
    """Return the body of a successful answer, else None; the key is in no message."""
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
            body: bytes = response.read()
            return body
    except Exception as error:  # its text may quote a header, so only its kind is printed
        log.say(f"{request.host} failed: {type(error).__name__} {getattr(error, 'code', '')}")
        return None


def pauses_s(environ: Mapping[str, str]) -> Iterator[float]:
    """Yield, without end, how long to wait before the next try: doubling, a minute at most."""
    for attempt in itertools.count():
        yield min(60.0, first_pause_s(environ) * 2 ** min(attempt, 10))


def first_pause_s(environ: Mapping[str, str]) -> float:
    """Return the shortest wait between two tries; an image may set it, tests do."""
    try:
        return float(environ["PODPROOF_PAUSE_SECONDS"])
    except (KeyError, ValueError):
        return 5.0


def run_folder(environ: Mapping[str, str]) -> Path:
    """Return where the run lives on the volume."""
    return Path(environ.get("PODPROOF_VOLUME", "/workspace"), environ["PODPROOF_RUN_ID"])


def put_whole(path: Path, text: str) -> None:
    """Have this text in the file, which is there whole or not at all; write only what is new."""
    content = text.encode()
    if path.exists() and path.read_bytes() == content:
        return
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_bytes(content)
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main(os.environ))
