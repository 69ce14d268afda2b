"""Data sets of the Hugging Face hub, streamed: rows come over the network one by one, at a commit that is known."""

import pyarrow as pa
from datasets import load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub import HfApi, errors
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError

from mft.data.ledger import Ledger
from mft.data.readers.raw import RawRow, Rows
from mft.data.source_config import HubSource
from mft.errors import DataError

TIMEOUT_S = 20
UNREACHABLE: tuple[type[Exception], ...] = (OSError, errors.HTTPError)   # httpx's below huggingface_hub 2, httpx2's from there on
"""No network, offline mode, a server that refuses: huggingface_hub and datasets raise these."""

UNUSABLE = (ValueError, LookupError, RuntimeError, DatasetsError, pa.ArrowException)
"""What datasets raises for a configuration or split that is not there, or files that it cannot read."""


def resolve_commit(source: HubSource) -> str:
    """The commit of the source's revision, asked for once.

    Raises:
        DataError: the hub cannot be reached, or has no such data set or revision.
    """
    if source.commit is None:
        source.pin(_commit_on_hub(source))
    return source.commit or source.revision


def read_hub(source: HubSource, ledger: Ledger) -> Rows:
    """The rows of one split, in its order, never all in memory at once.

    A row that cannot be fetched ends the build: leaving out what lies behind it would give another data set each time.

    Raises:
        DataError: the data set cannot be reached or used.
    """
    commit = resolve_commit(source)
    _commit_on_hub(source)   # datasets would try for half a minute before it said that there is no network
    number = 0
    try:
        rows = load_dataset(source.name, source.config, split=source.split, revision=commit, streaming=True)
        for value in rows.select_columns(list(source.columns)) if source.columns else rows:
            number += 1
            ledger.read += 1
            yield RawRow(number, value)
    except UNREACHABLE as error:
        raise DataError(_unreachable(source, error, number)) from error
    except UNUSABLE as error:
        raise DataError(f"data set '{source.name}': cannot be read after {number} rows: {error}") from error


def _commit_on_hub(source: HubSource) -> str:
    try:
        info = HfApi().dataset_info(source.name, revision=source.revision, timeout=TIMEOUT_S)
    except RevisionNotFoundError as error:
        raise DataError(f"data set '{source.name}' has no revision '{source.revision}'") from error
    except RepositoryNotFoundError as error:
        raise DataError(f"data set '{source.name}' is not on the hub, or is private and no token is set (hf auth login)") from error
    except UNREACHABLE as error:
        raise DataError(_unreachable(source, error, 0)) from error
    if not info.sha:
        raise DataError(f"data set '{source.name}': the hub names no commit for revision '{source.revision}'")
    return info.sha


def _unreachable(source: HubSource, error: Exception, rows: int) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        why = "offline mode is set (HF_HUB_OFFLINE)"
    elif isinstance(error, HfHubHTTPError):
        why = f"the server answered {error.response.status_code}"
    else:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
    command = f"hf download --repo-type dataset {source.name} --revision {source.commit or source.revision}"
    return (f"data set '{source.name}' cannot be reached{f' after {rows} rows' if rows else ''}: {why}; "
            f"download it where there is a network ({command}) and name its files: type: parquet (or jsonl, json, csv), path: ...")
