"""`pytorch_model*.bin` -> safetensors: the same numbers, streamed, read back and compared, whole or not at all."""

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mft import __version__
from mft.errors import CheckFailed, ModelError, OutputError
from mft.files import MANIFEST, read_json, resumable_folder, write_manifest
from mft.hashes import sha256_json
from mft.merging.blocks import Block, for_each_block, plan_blocks
from mft.merging.folder import write_model_config
from mft.merging.memory import MemoryWatch
from mft.merging.origin import hash_files
from mft.merging.reader import SafetensorsReader, open_model
from mft.merging.steps import SAFETENSORS_NAMES
from mft.merging.writer import ShardWriter, check_space, plan_shards
from mft.modeling.base import read_model_config
from mft.modeling.safetensors_header import StoredTensor
from mft.modeling.targets import base_layers
from mft.release.pickled import PickledModel, load_file, read_pickled_model

logger = logging.getLogger(__name__)

LEFT_OUT = frozenset({".bin", ".safetensors", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".gguf", ".onnx", ".py", ".md5", ".sha256"})
"""Endings of files that are not copied: weights in any format, their hashes, and code."""
LEFT_OUT_NAMES = frozenset({"pytorch_model.bin.index.json", MANIFEST, "SHA256SUMS", "config.json"})
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ConvertResult:
    """What was written. `left_out`: tensors that are another one's memory and that the model ties, by the name that is kept."""

    files: list[str]
    tensors: int
    bytes: int
    left_out: dict[str, str]
    compared: int
    """Tensors read back and found equal, bit for bit after the conversion of number types: all that were written."""
    resumed_bytes: int
    anonymous_bytes: int
    seconds: float


def convert(model: Path, out: Path, *, dtype: str = "keep", shard_bytes: int = 5_000_000_000, overwrite: bool = False,
            progress: Progress | None = None) -> ConvertResult:
    """Write `out`: the model with its weights as safetensors, config, tokenizer and all other small files as they are.

    `dtype`: keep, bf16, fp16 or fp32. Weights stream through a map of one .bin file at a time. Tied weights that share memory are
    written once, as transformers expects. A conversion that was killed goes on after the files that it had finished.

    Raises:
        ModelError: the weights cannot be read, or a value is not finite in `dtype`. OutputError: `out` holds something else; no room.
        CheckFailed: what was written is not what was read.
    """
    started = time.perf_counter()
    if model.resolve().is_relative_to(out.resolve()):
        raise OutputError(f"{out}: is or holds the model folder; give another --out")
    with MemoryWatch() as memory:
        config = read_model_config(model)
        pickled = read_pickled_model(model)
        left_out = _tied(config, pickled)
        sources = hash_files([model / "config.json", *pickled.files])
        key = sha256_json(["convert", sources, dtype, shard_bytes, __version__, version("torch")])
        if not overwrite and (done := _finished(out, key)):
            return done
        tensors = [tensor for tensor in pickled.tensors if tensor.name not in left_out]
        with resumable_folder(out, key, replace=overwrite) as folder:
            resumed = _Copy(pickled, tensors, folder, dtype, shard_bytes, progress).run()
            names = sorted(path.name for path in folder.glob("*.safetensors"))
            _copy_small_files(model, folder)
            if dtype == "keep":
                shutil.copyfile(model / "config.json", folder / "config.json")
            else:
                write_model_config(config, dtype, folder)
            size = sum((folder / name).stat().st_size for name in names)
            result = ConvertResult(names, len(tensors), size, left_out, len(tensors), resumed, memory.grown_bytes,
                                   time.perf_counter() - started)
            write_manifest(folder, {"made_by": "mft convert", "job": key, "dtype": dtype, "source_files": sources, "result": asdict(result),
                                    "versions": {"mft": __version__, "torch": version("torch")}})
    logger.info("converted %d tensors in %.1f s", result.tensors, result.seconds)
    return result


class _Copy:
    """Writes the tensors file by file of the source, and compares them."""

    def __init__(self, pickled: PickledModel, tensors: list[StoredTensor], folder: Path, dtype: str, shard_bytes: int,
                 progress: Progress | None) -> None:
        self._files, self._tensors, self._folder = pickled.files, tensors, folder
        self._shards = plan_shards(tensors, SAFETENSORS_NAMES.get(dtype), folder, shard_bytes)
        self._progress, self._done = progress, 0
        self._total = 2 * sum(tensor.num_bytes for tensor in tensors)

    def run(self) -> int:
        """Returns the bytes that an earlier attempt had written."""
        with ShardWriter(self._shards) as writer:
            check_space(self._folder, writer.missing_at_start)
            self._each_file(lambda values: lambda block: _write(block, values[block.tensor.name], writer), writer.done)
            writer.finish()
        with open_model(self._folder) as reader:
            if odd := sorted(reader.tensors.keys() ^ {tensor.name for tensor in self._tensors}):
                raise CheckFailed(f"'{odd[0]}': is in only one of source and output")
            self._each_file(lambda values: lambda block: _compare(block, values[block.tensor.name], reader), set())
        return writer.total_bytes - writer.missing_at_start

    def _each_file(self, work: Callable[[dict[str, torch.Tensor]], Callable[[Block], None]], skip: set[str]) -> None:
        for file in self._files:
            own = [tensor for tensor in self._tensors if tensor.path == file]
            self._done += sum(tensor.num_bytes for tensor in own if tensor.name in skip)
            left = [tensor for tensor in own if tensor.name not in skip]
            if left:
                loaded = load_file(file)
                values = {tensor.name: loaded[tensor.name].reshape(-1) for tensor in left}
                for_each_block(work(values), plan_blocks(left, ()), self._report)

    def _report(self, block: Block) -> None:
        self._done += block.num_elements * block.tensor.torch_dtype.itemsize
        if self._progress:
            self._progress(self._done, self._total)


def _write(block: Block, values: torch.Tensor, writer: ShardWriter) -> None:
    target = writer.tensors[block.tensor.name]
    numbers = values[block.start:block.stop]
    written = numbers.to(target.torch_dtype)
    if written.dtype != numbers.dtype and not torch.equal(torch.isfinite(written), torch.isfinite(numbers)):
        raise ModelError(f"{block.tensor.path}: '{block.tensor.name}': a value is too large for {target.dtype}; convert to bf16 or fp32")
    writer.write(block.tensor.name, block.start * target.torch_dtype.itemsize, written.contiguous().view(torch.uint8))


def _compare(block: Block, values: torch.Tensor, reader: SafetensorsReader) -> None:
    stored = reader.tensors[block.tensor.name]
    found = reader.read_numbers(stored, block.start, block.num_elements)
    wanted = values[block.start:block.stop].to(stored.torch_dtype)
    if stored.shape != block.tensor.shape or not torch.equal(found.view(torch.uint8), wanted.view(torch.uint8)):
        raise CheckFailed(f"{stored.path}: '{block.tensor.name}': elements {block.start} to {block.stop} are not those of "
                          f"{block.tensor.path}")


def _tied(config: dict[str, Any], pickled: PickledModel) -> dict[str, str]:
    """Of tensors that share memory: those that the model ties to another one by its config, by the name of that one."""
    if not pickled.shared:
        return {}
    try:
        layers = base_layers(config)
    except ModelError:      # not a model that transformers knows: every tensor is written
        return {}
    embedding, head = f"{layers.embedding}.weight", f"{layers.head}.weight"
    pairs = {frozenset(pair) for pair in pickled.shared.items()}
    return {head: embedding} if layers.tied and frozenset((embedding, head)) in pairs else {}


def _copy_small_files(model: Path, folder: Path) -> None:
    for path in sorted(model.iterdir()):
        if path.is_file() and not path.name.startswith(".") and path.suffix not in LEFT_OUT and path.name not in LEFT_OUT_NAMES:
            shutil.copyfile(path, folder / path.name)


def _finished(out: Path, key: str) -> ConvertResult | None:
    """The result of this very conversion, if `out` holds it with all files of their sizes."""
    try:
        manifest = read_json(out / MANIFEST)
        whole = manifest["job"] == key and all((out / name).stat().st_size == facts["bytes"] for name, facts in manifest["files"].items())
        return ConvertResult(**manifest["result"]) if whole else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
