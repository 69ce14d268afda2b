"""Files of data sets of the ModelScope hub: fetched into its cache, then read like any file.

The package's own loader of data sets is not used: it needs a version of `datasets` older than ours.
"""

import logging
from pathlib import Path

from mft.data.source_config import ModelscopeSource
from mft.data.walk import named_files
from mft.errors import DataError
from mft.extras import require

logger = logging.getLogger(__name__)


def fetch_files(source: ModelscopeSource) -> list[tuple[str, Path]]:
    """(label, path) of the source's files, as `named_files` gives those of a folder.

    Raises:
        DataError: the data set cannot be fetched, or has no such file. DependencyError: the package is not installed.
    """
    require("modelscope", extra="modelscope", why=f"the ModelScope data set '{source.name}'")
    from modelscope.hub.errors import HubError
    from modelscope.hub.snapshot_download import dataset_snapshot_download

    logger.info("ModelScope data set %s at %s: fetching %s", source.name, source.revision, source.files)
    try:
        folder = dataset_snapshot_download(source.name, revision=source.revision, allow_patterns=[source.files])
    except (HubError, OSError, ValueError) as error:   # requests' errors are OSErrors
        why = (str(error) or repr(error)).splitlines()[0]
        raise DataError(f"ModelScope data set '{source.name}' cannot be fetched: {why}; download it where there is a "
                        "network and name its files: type: parquet (or jsonl, json, csv), path: ...") from error
    return [(f"{source.name}/{label}", path) for label, path in named_files(Path(folder), source.files)]
