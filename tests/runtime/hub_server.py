"""A hub on loopback: repositories, commits, large files and tokens, and what can go wrong there.

It speaks what huggingface_hub asks of a hub when a folder is published, and keeps the rules that
matter: content is addressed by its hash, a large file is checked against its own, a commit names
its parent, metadata must be YAML, and nobody writes without a token that may.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

WRITER = "hf_" + "w" * 34
READER = "hf_" + "r" * 34
LARGE = re.compile(r".*\.(safetensors|bin)")

Files = dict[str, bytes]


class Fault(Enum):
    """What the hub does with a request instead of answering it well."""

    SERVER_ERROR = auto()
    BAD_GATEWAY_PAGE = auto()
    TOO_MANY = auto()
    FORBIDDEN = auto()
    HANG_UP = auto()
    NEVER_ANSWER = auto()
    DO_IT_AND_HANG_UP = auto()
    GARBLE = auto()


ANSWERS: Mapping[Fault, tuple[int, str, bytes]] = {
    Fault.SERVER_ERROR: (500, "application/json", b'{"error": "boom"}'),
    Fault.BAD_GATEWAY_PAGE: (502, "text/html", b"<html>bad gateway</html>"),
    Fault.TOO_MANY: (429, "application/json", b'{"error": "slow down"}'),
    Fault.FORBIDDEN: (403, "application/json", b'{"error": "you may not write here"}'),
}


@dataclass
class Repository:
    """One repository: its commits, oldest first, each with a name and the content of every file."""

    private: bool
    commits: list[tuple[str, Files]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def add(self, files: Files, message: str) -> str:
        parent = self.commits[-1][0] if self.commits else ""
        names = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        oid = _sha1(json.dumps([parent, names, message]).encode())
        self.commits.append((oid, files))
        self.messages.append(message)
        return oid

    def change(self, name: str, content: bytes) -> None:
        """Commit one changed file, as somebody at a browser would."""
        self.add({**self.files, name: content}, "by hand")

    @property
    def files(self) -> Files:
        return self.commits[-1][1]

    def at(self, revision: str) -> tuple[str, Files] | None:
        if revision == "main":
            return self.commits[-1]
        return next((commit for commit in self.commits if commit[0] == revision), None)


class LoopbackHub:
    """A hub that commits its faults first, by the kind of request, and else does as it is asked.

    `heard` has every request as (kind, what it is about); `large` every large file that was sent
    whole, by its sha256.
    """

    def __init__(self, *, knows_auth_check: bool = True) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: Files = {}
        self.heard: list[tuple[str, str]] = []
        self.faults: dict[str, list[Fault]] = {}
        self.knows_auth_check = knows_auth_check
        self.retry_after: str | None = "0"
        self._ended = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fail(self, kind: str, *faults: Fault) -> None:
        """Commit these faults, in order, when a request of this kind comes."""
        self.faults.setdefault(kind, []).extend(faults)

    def next_fault(self, kind: str) -> Fault | None:
        waiting = self.faults.get(kind)
        return waiting.pop(0) if waiting else None

    def wait_for_the_end(self) -> None:
        self._ended.wait()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as it is so; fail after two minutes."""
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.01)

    def count(self, kind: str) -> int:
        return sum(heard == kind for heard, _ in self.heard)


Answer = tuple[int, Any]
_Route = tuple[str, str, str, Callable[..., Answer]]

_REPO = r"(?P<repo>[^/]+/[^/]+?)"


class _Requests:
    """What each request does to the hub; a method returns status and JSON, or bytes."""

    def __init__(self, hub: LoopbackHub, token: str, body: bytes) -> None:
        self.hub = hub
        self.token = token
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def create(self) -> Answer:
        name = f"{self.json['organization']}/{self.json['name']}"
        if name in self.hub.repositories:
            url = f"{self.hub.url}/{name}"
            return 409, {"error": "You already created this model repo", "url": url}
        if self.token != WRITER:
            return 403, {"error": "You don't have the rights to create a model here"}
        private = self.json.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private)
        self.hub.repositories[name].add({".gitattributes": b"*.bin filter=lfs\n"}, "initial commit")
        return 200, {"url": f"{self.hub.url}/{name}"}

    def info(self, repo: str, revision: str = "main") -> Answer:
        repository = self.hub.repositories[repo]
        commit = repository.at(unquote(revision))
        if commit is None:
            return 404, {"error": "Invalid rev id"}
        siblings = [_sibling(name, content) for name, content in commit[1].items()]
        private = repository.private
        return 200, {"id": repo, "sha": commit[0], "private": private, "siblings": siblings}

    def auth_check(self, repo: str) -> Answer:
        if not self.hub.knows_auth_check:
            return 404, {"error": "Sorry, we can't find the page you are looking for."}
        return (200, {}) if self.token == WRITER else (403, {"error": "no right to write"})

    def validate(self) -> Answer:
        matter = re.match(r"---\n(.*?)\n---\n", self.json["content"], re.DOTALL)
        try:
            fields = yaml.safe_load(matter.group(1)) if matter else None
        except yaml.YAMLError as error:
            return 400, {"errors": [{"message": str(error)}], "warnings": []}
        is_mapping = isinstance(fields, dict)
        errors = [] if is_mapping else [{"message": "no metadata"}]
        return (200 if is_mapping else 400), {"errors": errors, "warnings": []}

    def preupload(self, repo: str, revision: str) -> Answer:
        there = self.hub.repositories[repo].files
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if LARGE.fullmatch(file["path"]) else "regular",
                "shouldIgnore": False,
                "oid": _oid(file["path"], there[file["path"]]) if file["path"] in there else None,
            }
            for file in self.json["files"]
        ]
        return (200, {"files": files}) if self.token == WRITER else (403, {"error": "read only"})

    def batch(self, repo: str) -> Answer:
        objects = [
            {
                **wanted,
                **(
                    {}
                    if wanted["oid"] in self.hub.large
                    else {
                        "actions": {
                            "upload": {"href": f"{self.hub.url}/large/{wanted['oid']}"},
                            "verify": {"href": f"{self.hub.url}/verify"},
                        }
                    }
                ),
            }
            for wanted in self.json["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}

    def put(self, oid: str) -> Answer:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return 400, {"error": "the content is not what its name says"}
        self.hub.large[oid] = self.body
        return 200, {}

    def verify(self) -> Answer:
        is_there = self.json["oid"] in self.hub.large
        return (200, {}) if is_there else (404, {"error": "no such object"})

    def commit(self, repo: str, revision: str) -> Answer:
        repository = self.hub.repositories[repo]
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in {None, repository.commits[-1][0]}:
            return 412, {"error": "A commit has happened since. Please refresh and try again."}
        files = dict(repository.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = repository.add(files, header["summary"])
        return 200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid}

    def resolve(self, repo: str, revision: str, path: str) -> Answer:
        commit = self.hub.repositories[repo].at(revision)
        if commit is None or path not in commit[1]:
            return 404, {"error": "Entry not found"}
        return 200, commit[1][path]


_ROUTES: tuple[_Route, ...] = (
    ("POST", r"/api/repos/create", "create", _Requests.create),
    ("POST", r"/api/validate-yaml", "validate", _Requests.validate),
    ("GET", rf"/api/models/{_REPO}/auth-check/write", "auth_check", _Requests.auth_check),
    ("GET", rf"/api/models/{_REPO}/revision/(?P<revision>.+)", "info", _Requests.info),
    ("GET", rf"/api/models/{_REPO}", "info", _Requests.info),
    ("POST", rf"/api/models/{_REPO}/preupload/(?P<revision>.+)", "preupload", _Requests.preupload),
    ("POST", rf"/api/models/{_REPO}/commit/(?P<revision>.+)", "commit", _Requests.commit),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", "batch", _Requests.batch),
    ("PUT", r"/large/(?P<oid>[0-9a-f]+)", "put", _Requests.put),
    ("POST", r"/verify", "verify", _Requests.verify),
    (
        "GET",
        rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        "resolve",
        _Requests.resolve,
    ),
)
KINDS = tuple(dict.fromkeys(kind for _, _, kind, _ in _ROUTES))


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = {"rfilename": name, "size": len(content)}
    if not LARGE.fullmatch(name):
        return {**fields, "blobId": _oid(name, content)}
    sha256 = hashlib.sha256(content).hexdigest()
    large = {"size": len(content), "sha256": sha256, "pointerSize": 134}
    return {**fields, "blobId": "f" * 40, "lfs": large}


def _oid(name: str, content: bytes) -> str:
    if LARGE.fullmatch(name):
        return hashlib.sha256(content).hexdigest()
    return _sha1(b"blob %d\0" % len(content) + content)


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


class _Server(ThreadingHTTPServer):
    """The HTTP server of one hub."""

    daemon_threads = True

    def __init__(self, hub: LoopbackHub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    """One request: what kind it is, whether it fails, whether the token will do, the answer."""

    server: _Server

    def do_GET(self) -> None:
        hub = self.server.hub
        kind, answer, named = _route(self.command, urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.heard.append((kind, urlsplit(self.path).path))
        fault = hub.next_fault(kind)
        if fault is Fault.NEVER_ANSWER:
            hub.wait_for_the_end()
        if fault in {Fault.HANG_UP, Fault.NEVER_ANSWER}:
            return
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if fault is not None and fault in ANSWERS:
            self._say(*ANSWERS[fault])
        elif kind != "put" and token not in {WRITER, READER}:
            # A careless hub that repeats what it was sent.
            self._answer(401, {"error": f"Invalid username or password: {token}"})
        else:
            reply = _reply(hub, answer, named, _Requests(hub, token, body))
            self._answer_unless(fault, reply)

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def _answer_unless(self, fault: Fault | None, reply: Answer) -> None:
        if fault is not Fault.DO_IT_AND_HANG_UP:
            self._answer(*(_garbled(*reply) if fault is Fault.GARBLE else reply))

    def _answer(self, status: int, content: Any) -> None:
        is_bytes = isinstance(content, bytes)
        kind = "application/octet-stream" if is_bytes else "application/json"
        self._say(status, kind, content if is_bytes else json.dumps(content).encode())

    def _say(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if status == 429 and self.server.hub.retry_after is not None:
            self.send_header("Retry-After", self.server.hub.retry_after)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


def _route(method: str, path: str) -> tuple[str, Callable[..., Answer], dict[str, str]]:
    for known_method, pattern, kind, answer in _ROUTES:
        match = re.fullmatch(pattern, path)
        if method == known_method and match:
            return kind, answer, match.groupdict()
    return "unknown", lambda _: (404, {"error": "no such page"}), {}


def _reply(
    hub: LoopbackHub, answer: Callable[..., Answer], named: dict[str, str], requests: _Requests
) -> Answer:
    if named.get("repo") not in {None, *hub.repositories}:
        return 404, {"error": "no such repository"}
    return answer(requests, **named)


def _garbled(status: int, content: Any) -> Answer:
    """Return an answer as a hub would give it whose disk has changed the files under it."""
    if isinstance(content, bytes):
        return status, content[::-1]
    for sibling in content.get("siblings", ()):
        sibling["size"] += 1
    return status, content
