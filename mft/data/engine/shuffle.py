"""Put the rows of all shards into their final order, in two passes, so that no process ever holds all of them.

    scatter   each shard's rows, with their final names, into a file of batches, one batch for each output file
    gather    each output file from its batches of all shards, sorted; and its lines for the content hash
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mft.data.engine.jobs import Job
from mft.data.engine.work import finished, part_of
from mft.data.outline import Outline
from mft.data.rows import ROWS_PER_GROUP, SCHEMA, hash_line

ORDERS = pa.schema([("row", pa.int64()), ("file", pa.int32()), ("position", pa.int64()), ("id", pa.string()), ("task", pa.string()),
                    ("split_key", pa.string())])
SCATTERED = pa.schema([*SCHEMA, pa.field("position", pa.int64())])
RENAMED = ("id", "task", "split_key")


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One Parquet file of the built folder: the rows of a part from `start` on."""

    number: int
    part: str
    name: str
    start: int
    rows: int


def output_files(parts: Mapping[str, Sequence[Any]], rows_per_file: int) -> list[OutputFile]:
    """`train-00000-of-00003.parquet` and so on, none for a part without rows: `datasets.load_dataset` refuses a file without any."""
    out: list[OutputFile] = []
    for part, rows in parts.items():
        starts = range(0, len(rows), rows_per_file)
        for number, start in enumerate(starts):
            name = f"{part}-{number:05d}-of-{len(starts):05d}.parquet"
            out.append(OutputFile(len(out), part, name, start, min(rows_per_file, len(rows) - start)))
    return out


def write_orders(folder: Path, parts: Mapping[str, Sequence[Outline]], files: Sequence[OutputFile]) -> list[int]:
    """For each shard, which row goes where under which names; returns the shards that give any row."""
    orders: dict[int, list[tuple[int, int, int, Outline]]] = {}
    for file in files:
        for position, row in enumerate(parts[file.part][file.start:file.start + file.rows]):
            orders.setdefault(row.shard, []).append((row.row, file.number, position, row))
    for shard in sorted(orders):
        wanted = sorted(orders.pop(shard), key=lambda order: order[:3])
        columns = [[order[index] for order in wanted] for index in range(3)]
        columns += [[getattr(order[3], name) for order in wanted] for name in RENAMED]
        with part_of(folder, f"orders-{shard:05d}.parquet") as path:
            pq.write_table(pa.table(columns, schema=ORDERS), path, compression="zstd")
    return sorted({row.shard for rows in parts.values() for row in rows})


@dataclass(frozen=True, slots=True)
class ScatterJob(Job):
    """Writes the rows of one shard as a file of batches; the result says which batches are whose."""

    folder: Path
    shard: int
    rows: str
    rows_per_file: int

    @property
    def name(self) -> str:
        return f"scatter{self.rows_per_file}-{self.shard:05d}"

    def run(self) -> dict[str, Any]:
        """`batches` {number of the output file: [numbers of batches]}."""
        orders = pq.read_table(self.folder / f"orders-{self.shard:05d}.parquet", schema=ORDERS)
        numbers = orders["row"].to_numpy()
        batches: dict[str, list[int]] = {}
        written, start = 0, 0
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with (part_of(self.folder, f"{self.name}.arrow") as path, pa.ipc.new_file(path, SCATTERED, options=options) as writer,
              pq.ParquetFile(self.folder / self.rows) as source):
            for group in range(source.num_row_groups):
                table = source.read_row_group(group, columns=SCHEMA.names)
                low, high = np.searchsorted(numbers, [start, start + len(table)])
                for file, batch in _by_file(table, orders.slice(low, high - low), start):
                    writer.write_batch(batch)
                    batches.setdefault(str(file), []).append(written)
                    written += 1
                start += len(table)
        return {"rows": len(orders), "batches": batches}


def _by_file(table: pa.Table, orders: pa.Table, start: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """(output file, its rows) of one row group."""
    orders = orders.sort_by([("file", "ascending"), ("position", "ascending")])
    rows = table.take(pc.subtract(orders["row"], start))
    for name in RENAMED:
        rows = rows.set_column(rows.schema.get_field_index(name), SCHEMA.field(name), orders[name])
    rows = rows.append_column(SCATTERED.field("position"), orders["position"]).select(SCATTERED.names).cast(SCATTERED)
    files = orders["file"].to_numpy()
    for file in np.unique(files).tolist():
        low, high = np.searchsorted(files, [file, file + 1])
        for batch in rows.slice(low, high - low).combine_chunks().to_batches():
            yield file, batch


@dataclass(frozen=True, slots=True)
class GatherJob(Job):
    """Writes one output file and its lines for the content hash."""

    folder: Path
    file: OutputFile
    scattered: tuple[str, ...]
    rows_per_file: int

    @property
    def name(self) -> str:
        return f"gather{self.rows_per_file}-{self.file.number:05d}"

    @property
    def parquet(self) -> Path:
        """The file of rows."""
        return self.folder / f"{self.name}.parquet"

    @property
    def lines(self) -> Path:
        """The file of lines."""
        return self.folder / f"{self.name}.lines"

    def run(self) -> dict[str, Any]:
        """`rows`."""
        table = pa.Table.from_batches(self._batches(), SCATTERED)
        table = table.take(pc.sort_indices(table["position"])).drop_columns(["position"])
        if len(table) != self.file.rows:
            raise AssertionError(f"{self.file.name}: {len(table)} rows came together, {self.file.rows} were sent")
        with part_of(self.folder, self.parquet.name) as path, pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            writer.write_table(table.cast(SCHEMA), row_group_size=ROWS_PER_GROUP)
        with part_of(self.folder, self.lines.name) as path, path.open("wb") as stream:
            for batch in table.to_batches(max_chunksize=1000):
                stream.writelines(hash_line(self.file.part, record) for record in batch.to_pylist())
        return {"rows": len(table)}

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for name in self.scattered:
            result = finished(self.folder, name)
            assert result is not None
            with pa.memory_map(str(self.folder / f"{name}.arrow")) as source:
                file = pa.ipc.open_file(source)
                yield from (file.get_batch(number) for number in result["batches"].get(str(self.file.number), ()))
