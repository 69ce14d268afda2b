"""Where a build runs and how it writes; nothing here changes a row."""

from typing import Literal

from pydantic import Field, model_validator

from mft.config.model import StrictModel

ROWS_PER_SHARD = 50_000


class Engine(StrictModel):
    """`Engine(workers=4)`: four processes. `Engine(engine="ray", ray_address="auto")`: a cluster that is running."""

    engine: Literal["local", "ray"] = "local"
    """`local`: this machine. `ray`: a Ray cluster whose machines all see the output folder and the sources under the same paths."""

    workers: int = Field(1, ge=1, le=1024)
    """`local`: processes; 1 builds in this one. With `ray` the CPUs of the cluster decide."""

    ray_address: str | None = None
    """`ray`: the address of a running cluster, or `auto`; none: one is started on this machine for the build."""

    shard_rows: int = Field(ROWS_PER_SHARD, ge=1)
    """Rows of a Parquet file that is written. A process that writes one holds that many rows in memory."""

    @model_validator(mode="after")
    def _consistent(self) -> "Engine":
        if self.engine == "ray" and self.workers != 1:
            raise ValueError(f"workers is {self.workers}, but with the engine ray the CPUs of the cluster decide; leave it out")
        if self.engine == "local" and self.ray_address is not None:
            raise ValueError("ray_address needs the engine ray")
        return self
