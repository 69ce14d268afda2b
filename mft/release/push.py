"""Upload a release to a model hub: only when asked to twice, and only what its manifest proves."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mft.errors import DataError, MftError
from mft.release.card import CARD
from mft.release.check import check_folder

logger = logging.getLogger(__name__)


class HubError(MftError):
    """The hub could not be reached, or did not take the upload."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What would be, or was, uploaded. `files`: path -> bytes; `url`: of the commit, None for a dry run."""

    repo: str
    revision: str
    files: dict[str, int]
    url: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields, with the sum of the sizes."""
        return {"repo": self.repo, "revision": self.revision, "really": self.url is not None, "url": self.url,
                "bytes": sum(self.files.values()), "files": [{"path": path, "bytes": size} for path, size in self.files.items()]}


def push(folder: Path, repo: str, *, revision: str = "main", private: bool = False, really: bool = False) -> Upload:
    """Check every file against the folder's hashes; with `really`, upload them in one commit, else say what would go.

    The token is the one of the environment (HF_TOKEN) or of the hub's own login; mft takes none and stores none. `revision`: a branch,
    made if it is not there (one for each job of a quantise matrix).

    Raises:
        CheckFailed: a file is not as its hashes say, or there are none. DataError: no card, or `repo` is not owner/name.
        HubError: offline, no token, or the hub refused.
    """
    if repo.count("/") != 1 or repo.startswith("/") or repo.endswith("/"):
        raise DataError(f"--to {repo}: is not a repository of a hub; expected owner/name")
    found = check_folder(folder)
    found.require()
    if not (folder / CARD).is_file():
        raise DataError(f"{folder}: has no {CARD}; `mft release` writes the model card")
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    return Upload(repo, revision, files, _upload(folder, repo, revision, private, list(files)) if really else None)


def _upload(folder: Path, repo: str, revision: str, private: bool, names: list[str]) -> str:
    from importlib import import_module

    from huggingface_hub import HfApi, get_session
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    http = import_module(type(get_session()).__module__.partition(".")[0])   # httpx, or httpx2, by the hub library's version
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        if revision != "main":
            api.create_branch(repo, branch=revision, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=folder, revision=revision, allow_patterns=names,
                                 commit_message=f"{folder.resolve().name}, checked against its manifest")
    except LocalTokenNotFoundError as error:
        raise HubError(f"{repo}: no token; set HF_TOKEN, or run: hf auth login") from error
    except OfflineModeIsEnabled as error:
        raise HubError(f"{repo}: the hub is switched off (HF_HUB_OFFLINE); nothing was uploaded") from error
    except (HfHubHTTPError, http.HTTPError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HubError(f"{repo}: the hub at {api.endpoint} did not take it: {reason}") from error
    return str(done.commit_url)
