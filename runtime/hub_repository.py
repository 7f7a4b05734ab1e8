"""One repository of the hub: what it holds, one commit that changes it, and reading that back.

The hub decides by content what it has already: a file that is there is not sent again, and of a
large one what was sent before a cut. So doing it all again goes on where the last try ended.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from podproof.runtime.delivery import DeliveryRecord, write_durably
from podproof.runtime.plan import Plan

_HUB_COMMIT_FILE = "published.json"
_HUB_REQUEST_SECONDS = 60.0
_HUB_NOT_FOUND = 404

# What a loader reads. One of these left over from another run would be loaded with our weights.
_HUB_LOADED_FILES = re.compile(
    r"(adapter_|pytorch_)?model\b.*\.(safetensors|bin|json)|(adapter_|generation_)?config\.json"
    r"|chat_template\..*|tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\..*|merges\.txt"
)


class HubRefusal(Exception):
    """Nothing that a later try could change: what is wrong, and the way out."""

    def __init__(self, what: str, way_out: str) -> None:
        super().__init__(what)
        self.way_out = way_out


class HubRepository:
    """The plan's repository; each method raises what the hub's client raises, or HubRefusal."""

    def __init__(self, plan: Plan) -> None:
        """Take the plan; nothing is asked before a method is called."""
        self.repo_id = plan.publish.repo_id or ""
        self._plan = plan

    def ask(self) -> None:
        """Make the repository if it is not there, and ask whether we may write to it."""
        api = _hub_client()
        self._own(api)
        try:
            api.auth_check(self.repo_id, write=True)
        except Exception as error:
            # A hub of one's own may not know this question; then the upload will tell.
            if hub_status(error) != _HUB_NOT_FOUND:
                raise

    def put(self, record: DeliveryRecord) -> dict[str, Any]:
        """Make the repository hold the delivered files; return commit and address once it does.

        A commit of an earlier start that is still whole is left as it is, whatever came after it.
        Raise OSError when what is read back differs.
        """
        api, folder = _hub_client(), Path(record.path or "")
        commit_file = folder.parent / _HUB_COMMIT_FILE
        commit = self._former_commit(commit_file, record)
        if commit is None or self._read_back(api, commit, record):
            commit = self._commit(api, record)
            differences = self._read_back(api, commit, record)
            if differences:
                raise OSError(f"read back from the hub, {differences[0]}")
        body = {
            "repo_id": self.repo_id,
            "commit": commit,
            "url": f"{api.endpoint}/{self.repo_id}/tree/{commit}",
            "step": record.step,
            "files": len(record.sha256),
        }
        write_durably(commit_file, json.dumps({**body, "sha256": record.sha256}).encode())
        return body

    def _own(self, api: Any) -> Any:
        """Return the repository's list of files; make it first when it is not there."""
        private = self._plan.publish.private
        api.create_repo(self.repo_id, private=private, exist_ok=True)
        info = api.model_info(self.repo_id, files_metadata=True)
        if private and not info.private:
            what = f"{self.repo_id} is public, and publish.private asks for a private repository"
            raise HubRefusal(what, "make it private on the hub, or set publish.private=false")
        return info

    def _commit(self, api: Any, record: DeliveryRecord) -> str:
        """Return the commit that holds the files: a new one, or the newest when nothing differs."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        folder, before = Path(record.path or ""), self._own(api)
        leftovers = [
            file.rfilename
            for file in before.siblings or ()
            if _HUB_LOADED_FILES.fullmatch(file.rfilename) and file.rfilename not in record.sha256
        ]
        if not leftovers and not _hub_differences(before, folder, record.sha256):
            return str(before.sha)
        added = [CommitOperationAdd(name, folder / name) for name in record.sha256]
        for addition in added:
            # One by one: together they are sent by threads that keep the script from ending.
            api.preupload_lfs_files(self.repo_id, [addition], free_memory=False)
        commit = api.create_commit(
            self.repo_id,
            [*added, *(CommitOperationDelete(name) for name in leftovers)],
            commit_message=f"{self._plan.name}: the weights of step {record.step}",
            commit_description=f"sha256 of the config: {self._plan.config_sha256}",
            parent_commit=before.sha,
        )
        return str(commit.oid)

    def _read_back(self, api: Any, commit: str, record: DeliveryRecord) -> list[str]:
        """Return what differs between a commit and the delivered files.

        What the hub keeps in git is downloaded. Of large files it has computed the sha256 itself
        when it took them; that and the size are compared.
        """
        try:
            info = api.model_info(self.repo_id, revision=commit, files_metadata=True)
        except Exception as error:
            if hub_status(error) != _HUB_NOT_FOUND:
                raise
            return [f"the commit {commit} is not there"]
        differences = _hub_differences(info, Path(record.path or ""), record.sha256)
        in_git = [file.rfilename for file in info.siblings or () if file.lfs is None]
        for name in sorted(record.sha256.keys() & set(in_git)):
            if self._remote_sha256(api, commit, name) != record.sha256[name]:
                differences.append(f"{name} differs")
        return differences

    def _remote_sha256(self, api: Any, commit: str, name: str) -> str:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        url = hf_hub_url(self.repo_id, name, revision=commit, endpoint=api.endpoint)
        response = get_session().get(url, headers=build_hf_headers(token=api.token))
        hf_raise_for_status(response)
        return hashlib.sha256(response.content).hexdigest()

    def _former_commit(self, path: Path, record: DeliveryRecord) -> str | None:
        """Return the commit of an earlier start that published these very files here."""
        try:
            former = json.loads(path.read_bytes())
            is_same = (former["repo_id"], former["sha256"]) == (self.repo_id, record.sha256)
            return str(former["commit"]) if is_same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def hub_status(error: BaseException) -> int | None:
    """Return the HTTP status behind an error, if an answer of the hub is behind it."""
    answered = hub_answer(error)
    return None if answered is None else int(answered.response.status_code)


def hub_answer(error: BaseException) -> Any:
    """Return the error that carries the hub's answer: this one, or what caused it; None if none."""
    answered = (
        cause
        for cause in hub_causes(error)
        if hasattr(getattr(cause, "response", None), "status_code")
    )
    return next(answered, None)


def hub_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it, the first cause last."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _hub_client() -> Any:
    """Return the hub's client, which gives up on a silent hub; raise HubRefusal without a token."""
    from huggingface_hub import HfApi, constants, get_token, set_client_factory
    from huggingface_hub.utils import disable_progress_bars, logging
    from huggingface_hub.utils._http import default_client_factory

    def patient_client() -> Any:
        client = default_client_factory()
        client.timeout = _HUB_REQUEST_SECONDS  # of its own it waits for an answer for ever
        return client

    if constants.is_offline_mode():
        raise HubRefusal("HF_HUB_OFFLINE is set", "unset it where the script runs")
    if not get_token():
        raise HubRefusal("there is no token for the hub", "set HF_TOKEN where the script runs")
    set_client_factory(patient_client)
    logging.set_verbosity_error()  # its warnings quote signed addresses
    disable_progress_bars()
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    if "huggingface.co" not in endpoint:
        # Xet is the storage of that one hub. The variable for it was read at the first import.
        constants.HF_HUB_DISABLE_XET = True
    return HfApi(endpoint=endpoint, token=get_token())


def _hub_differences(info: Any, folder: Path, sha256: Mapping[str, str]) -> list[str]:
    """Return what differs between the repository's own list of files and the folder."""
    there = {file.rfilename: file for file in info.siblings or ()}
    compared = {
        name: _hub_difference(there.get(name), folder / name, digest)
        for name, digest in sha256.items()
    }
    return [f"{name} {what}" for name, what in compared.items() if what]


def _hub_difference(file: Any, path: Path, sha256: str) -> str:
    if file is None:
        return "is missing"
    if file.size != path.stat().st_size:
        return f"has {file.size} bytes, not {path.stat().st_size}"
    if file.lfs is not None:
        return "" if file.lfs.sha256 == sha256 else f"has the sha256 {file.lfs.sha256}"
    return "" if file.blob_id == _hub_git_sha1(path) else "differs"


def _hub_git_sha1(path: Path) -> str:
    """Return the name that git gives to a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
