"""Where a run starts: an empty folder, the newest checkpoint that is whole, or its end."""

import logging
import shutil
from pathlib import Path
from typing import Any

from mft.errors import CheckFailed, CheckpointError
from mft.files import claim_folder, job_of, read_json
from mft.training.checkpoints import check_checkpoint, checkpoints, cut_metrics, sweep_partial

logger = logging.getLogger(__name__)

RUN, METRICS = "run.json", "metrics.jsonl"


def claim_run(out: Path, key: str, resume: str, overwrite: bool, replace_other: bool) -> tuple[dict[str, Any] | None, Path | None]:
    """Take a run folder: the record of a run that is finished, or the checkpoint to go on from.

    `resume`, `overwrite`, `replace_other`: as in `mft.training.run.train`.

    Raises:
        OutputError: `out` holds another job. CheckpointError: the checkpoint is not whole, or another job's; none of them is whole.
    """
    claimed = claim_folder(out, key, overwrite=overwrite, replace_other=replace_other)
    if claimed == "same" and (out / RUN).is_file() and resume == "auto":
        return dict(read_json(out / RUN)), None
    return None, _starting_point(out, resume, key)


def _starting_point(out: Path, resume: str, key: str) -> Path | None:
    """The checkpoint to go on from; metrics and checkpoints after it are dropped, they will be made again."""
    sweep_partial(out)
    chosen: Path | None = None
    if resume not in ("auto", "never"):
        chosen = Path(resume)
        check_checkpoint(chosen)
        if job_of(chosen.resolve().parent) != key:
            raise CheckpointError(f"{resume}: is not a checkpoint of this run: its model, data or settings differ, or it does not lie "
                                  "in a run folder of mft")
    elif resume == "auto":
        chosen = _newest_whole(out)
    step = check_checkpoint(chosen) if chosen else 0
    cut_metrics(out / METRICS, step if chosen else -1)
    for later, folder in checkpoints(out):
        if later > step:
            shutil.rmtree(folder)
    if chosen:
        logger.info("going on from %s", chosen)
    return chosen


def _newest_whole(out: Path) -> Path | None:
    """The newest checkpoint whose files are as they were written; damaged ones are named.

    Raises:
        CheckpointError: there are checkpoints, and all of them are damaged.
    """
    found = checkpoints(out)
    for _, folder in reversed(found):
        try:
            check_checkpoint(folder)
        except (CheckpointError, CheckFailed) as error:
            logger.warning("%s is damaged and is passed over: %s", folder, str(error).splitlines()[0])
            continue
        return folder
    if found:
        raise CheckpointError(f"{out}: none of the {len(found)} checkpoints is whole; start anew with --resume never")
    return None
