"""Packers that mft's is measured against: trl's best-fit decreasing, axolotl's multipack, and two textbook ones.

trl is the installed library. axolotl's `multipack.py` is read from a file that the user names, with stand-ins for the two modules
of axolotl that it imports; nothing of it is kept here. A packer takes lengths and a capacity and gives `Packed`.
"""

import contextlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from trl.data_utils import _pack_bfd

AXOLOTL_GROUP: Final = 100_000
AXOLOTL_IN_A_ROW: Final = 200
"""axolotl's defaults: samples that are looked at together, and samples that may share a row."""
TRL_BATCH: Final = 1000
"""What `trl.pack_dataset` looks at together unless told otherwise."""
CHUNK: Final = 1000
"""Samples that the textbook packers sort together."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What a packer made: rows, the tokens in them, and rows that hold more than the capacity."""

    rows: int
    tokens: int
    overfull: int = 0



def trl_rows(lengths: Sequence[int], capacity: int, batch: int) -> list[pa.Table]:
    """trl's rows of `lengths`, looking at `batch` samples at a time.

    trl packs a table of tokens; here its table holds nulls, which take no memory, so that only the choice of rows is timed.
    """
    tables = []
    for start in range(0, len(lengths), batch):
        ends = np.cumsum([0, *lengths[start:start + batch]], dtype=np.int32)   # as `datasets` has it
        tokens = pa.ListArray.from_arrays(pa.array(ends), pa.nulls(int(ends[-1])))
        tables.append(_pack_bfd(pa.table({"input_ids": tokens}), capacity))
    return tables


def of_tables(tables: Sequence[pa.Table], capacity: int) -> Packed:
    """Counts of trl's rows."""
    sizes = np.concatenate([pc.list_value_length(table["input_ids"]).to_numpy() for table in tables])
    return Packed(len(sizes), int(sizes.sum()), int((sizes > capacity).sum()))


def of_indices(rows: Sequence[Sequence[int]], lengths: Sequence[int], capacity: int) -> Packed:
    """Counts of rows of indices.

    Raises:
        ValueError: a sample stands in two rows.
    """
    members = np.fromiter((index for row in rows for index in row), dtype=np.int64)
    if len(np.unique(members)) != len(members):
        raise ValueError("a sample stands in two rows")
    ends = np.cumsum([len(row) for row in rows])
    totals = np.concatenate([[0], np.cumsum(np.asarray(lengths)[members])])[np.concatenate([[0], ends])]
    sizes = np.diff(totals)
    return Packed(len(rows), int(sizes.sum()), int((sizes > capacity).sum()))


def next_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows filled in order; a sample that does not fit opens the next (what MFTCoder's `pack` does)."""
    rows: list[list[int]] = [[]]
    left = capacity
    for index, length in enumerate(lengths):
        if length > left:
            rows.append([])
            left = capacity
        rows[-1].append(index)
        left -= length
    return rows


def first_fit_decreasing(lengths: Sequence[int], capacity: int, chunk: int = CHUNK) -> list[list[int]]:
    """First fit, longest first, over `chunk` samples at a time: the textbook packer, in plain Python."""
    rows: list[list[int]] = []
    for start in range(0, len(lengths), chunk):
        order = sorted(range(start, min(start + chunk, len(lengths))), key=lambda index: -lengths[index])
        space: list[int] = []
        own: list[list[int]] = []
        for index in order:
            at = next((row for row, left in enumerate(space) if left >= lengths[index]), len(space))
            if at == len(space):
                space.append(capacity)
                own.append([])
            space[at] -= lengths[index]
            own[at].append(index)
        rows += own
    return rows


def axolotl_packer(path: Path) -> Callable[[Sequence[int], int], list[list[int]]]:
    """axolotl's sampler at its defaults, in one process, over samples in random order (as its trainer gives them).

    Compiled here on a few lengths, so that numba's time is not counted.

    Raises:
        ImportError: numba or torch is missing. AttributeError: `path` is another version of that file.
    """
    module = _load_multipack(path)

    def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
        sampler = module.MultipackBatchSampler(range(len(lengths)), batch_size=1, batch_max_len=capacity, lengths=np.asarray(lengths),
                                               bin_size=AXOLOTL_IN_A_ROW, group_size=AXOLOTL_GROUP, num_processes=1)
        return [row for batch in sampler.generate_batches() for row in batch]

    pack([3, 2, 1], 4)
    return pack


def _load_multipack(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("axolotl_multipack", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _stand_ins():
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Modules in the place of those that multipack.py imports of axolotl; it calls neither in one process."""
    names = ("axolotl", "axolotl.utils", "axolotl.utils.distributed", "axolotl.utils.logging")
    before = {name: sys.modules.get(name) for name in names}
    made = {name: ModuleType(name) for name in names}
    made["axolotl.utils.distributed"].reduce_and_broadcast = lambda one, many: many([one()])   # type: ignore[attr-defined]
    made["axolotl.utils.logging"].get_logger = logging.getLogger   # type: ignore[attr-defined]
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
