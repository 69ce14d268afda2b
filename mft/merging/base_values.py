"""The values that an adapter is added to, block by block: those of the files, or what NF4 makes of them."""

import torch

from mft.merging.blocks import Block, Scratch
from mft.merging.nf4 import Nf4RoundTrip
from mft.merging.reader import SafetensorsReader


class BaseValues:
    """Reads blocks of the weights before the change. Threads may call it at once; each block read overwrites the thread's last one."""

    def __init__(self, reader: SafetensorsReader, round_trip: Nf4RoundTrip | None = None) -> None:
        self._reader, self._round_trip = reader, round_trip
        self._scratch = Scratch()

    def read(self, block: Block) -> torch.Tensor:
        """The block [rows, columns], in the dtype of its file, or in that which the 4-bit model computed in."""
        values = self.stored(block)
        return self._round_trip.apply(block, values) if self._round_trip and block.tensor.name in self._round_trip else values

    def stored(self, block: Block) -> torch.Tensor:
        """The block [rows, columns] as the file has it."""
        dtype = block.tensor.torch_dtype
        raw = self._scratch.take("read", block.num_elements, dtype)
        self._reader.read_into(block.tensor, block.first_element * dtype.itemsize, raw.view(torch.uint8))
        return raw.view(-1, block.columns)
