"""A bare git repository with one branch for each job, as the hubs keep a matrix of quantised models.

Weights are stored as git-lfs keeps them: a pointer in the tree, the bytes (a hard link where the disk knows them) under lfs/objects. Made
with git's plumbing alone: no work tree, no hooks, no configuration of the user's.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mft.errors import DependencyError, OutputError
from mft.files import atomic_folder
from mft.hashes import hash_file

LARGE = (".safetensors", ".gguf")
ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE)
AUTHOR = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
          for what, value in (("NAME", "mft"), ("EMAIL", "mft@localhost"), ("DATE", "2000-01-01T00:00:00+0000"))}
"""The same for every commit, so that the same folders give the same commits."""


def write_branches(repository: Path, folders: Mapping[str, Path]) -> dict[str, str]:
    """Make the repository anew; returns branch -> commit. HEAD is the first branch.

    Raises:
        DependencyError: git is not installed. OutputError: git refused.
    """
    if shutil.which("git") is None:
        raise DependencyError("git: true needs the program git, which is not installed")
    with atomic_folder(repository, replace=True) as partial:
        _git(partial, "init", "--quiet", "--bare", "--initial-branch", next(iter(folders), "main"), str(partial))
        commits = {}
        for branch, folder in folders.items():
            commits[branch] = _git(partial, "commit-tree", _tree(partial, folder), "-m", f"{branch}: made by mft quantize")
            _git(partial, "update-ref", f"refs/heads/{branch}", commits[branch])
    return commits


def _tree(repository: Path, folder: Path) -> str:
    """A tree of the folder's files, which has no folders of its own."""
    lines = [f"100644 blob {_blob(repository, ATTRIBUTES.encode())}\t.gitattributes"]
    for path in sorted(folder.iterdir()):
        content = _pointer(repository, path) if path.suffix in LARGE else path.read_bytes()
        lines.append(f"100644 blob {_blob(repository, content)}\t{path.name}")
    return _git(repository, "mktree", given="\n".join(lines).encode() + b"\n")


def _pointer(repository: Path, path: Path) -> bytes:
    """The pointer of a large file, whose bytes are put where git-lfs looks for them. Source: git-lfs, docs/spec.md."""
    facts = hash_file(path)
    place = repository / "lfs" / "objects" / facts["sha256"][:2] / facts["sha256"][2:4] / facts["sha256"]
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, place)
        except OSError:
            shutil.copyfile(path, place)
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{facts['sha256']}\nsize {facts['bytes']}\n".encode()


def _blob(repository: Path, content: bytes) -> str:
    return _git(repository, "hash-object", "-w", "--stdin", given=content)


def _git(repository: Path, *arguments: str, given: bytes = b"") -> str:
    own = {"GIT_DIR": str(repository), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, **AUTHOR}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(["git", *arguments], input=given, capture_output=True, env=kept | own, check=False)
    if done.returncode:
        raise OutputError(f"{repository}: git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode().strip()
