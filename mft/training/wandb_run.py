"""Weights & Biases: one run over all resumptions, online or in a folder."""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from mft.errors import ConfigError
from mft.files import read_json, write_json

RUN_ID = "wandb.json"
"""In the run folder: which wandb run it is."""


class WandbRun:
    """A wandb run whose id lies in the run folder, so that a resumed training goes on in it.

    A value's wandb step is the optimizer step. Online, steps that a resumed training makes again are refused by the server, which
    has them; offline, each start writes a folder of its own under `FOLDER/wandb` with the same run id, and `wandb sync` of all
    of them gives the one run. WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY and the others of wandb's variables count.
    """

    def __init__(self, folder: Path, project: str, name: str, facts: Mapping[str, Any], *, fresh: bool) -> None:
        """Raises: ConfigError: wandb cannot begin a run, for want of a login or of the network."""
        given = os.environ.get("WANDB_PROJECT", project)
        record = folder / RUN_ID
        if fresh or not record.is_file():
            # Not derived from the config: an id that was used and deleted on the server cannot be used again.
            write_json(record, {"id": os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4), "project": given})
        try:
            self._run = wandb.init(project=given, name=name, id=read_json(record)["id"], resume="allow", dir=str(folder),
                                   config=dict(facts), allow_val_change=True)
        except wandb.Error as error:
            raise ConfigError([f"tracking.wandb: no run could be begun: {error}; run `wandb login`, or set WANDB_MODE=offline"]) from error

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add values under their names."""
        self._run.log(dict(values), step=step)

    def table(self, step: int, name: str, rows: Sequence[Mapping[str, str]]) -> None:
        """Add a table of texts; the rows have the same keys."""
        columns: list[str | int] = [*rows[0]]
        self._run.log({name: wandb.Table(columns=columns, data=[list(row.values()) for row in rows])}, step=step)

    def close(self, exit_code: int) -> None:
        """End the run; with a code other than 0 it is shown as failed."""
        self._run.finish(exit_code=exit_code)
