"""What a git repository held at a revision: its configs and scripts, in a folder for a while."""

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podproof.compiler.errors import BadConfig
from podproof.runtime.errors import Problem

# What a config or a script is made of; data stays where it is.
_SUFFIXES = {".json", ".py", ".yaml", ".yml"}


@contextmanager
def tree_at(revision: str) -> Iterator[Path]:
    """Yield the working directory as the revision has it, with configs and scripts only.

    The folder is gone afterwards. Raise BadConfig for a revision that git does not know, and
    outside of a repository.
    """
    top = Path(_git(revision, "rev-parse", "--show-toplevel").strip())
    # A revision never reaches git as an option, and a branch that moves meanwhile is no matter.
    name = f"{revision}^{{commit}}"
    commit = _git(revision, "rev-parse", "--verify", "--end-of-options", name).strip()
    with tempfile.TemporaryDirectory(prefix="podproof-") as folder:
        _unpack(top, commit, Path(folder))
        yield Path(folder) / Path.cwd().resolve().relative_to(top.resolve())


def _unpack(top: Path, commit: str, folder: Path) -> None:
    git = shutil.which("git") or "git"
    command = [git, "-C", str(top), "archive", "--format=tar", commit]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as archive:
        assert archive.stdout is not None
        with tarfile.open(fileobj=archive.stdout, mode="r|") as members:
            # Python before 3.11.4 has no filters and ignores this; git's own archives need none.
            members.extraction_filter = getattr(tarfile, "data_filter", None)
            for member in members:
                if member.isfile() and Path(member.name).suffix in _SUFFIXES:
                    members.extract(member, folder)


def _git(revision: str, *arguments: str) -> str:
    git = shutil.which("git")
    if git is None:
        raise BadConfig(Problem(revision, "git is not installed", "install git, or give files"))
    try:
        done = subprocess.run([git, *arguments], capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or ["git does not know it"])[-1]
        way_out = "git log shows the revisions; in a shallow clone, git fetch --unshallow first"
        raise BadConfig(Problem(revision, said, way_out)) from error
    return done.stdout
