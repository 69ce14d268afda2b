"""Base + adapter -> merged model folder: streamed, checked, whole or not at all.

This module imports no torch, so that the package does not; what computes is imported when a merge begins.
"""

import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mft import __version__
from mft.errors import ModelError, OutputError
from mft.files import atomic_folder, write_json, write_manifest
from mft.merging.config import MergeOptions
from mft.merging.memory import MemoryWatch
from mft.merging.origin import check_base, hash_files, read_origin
from mft.merging.result import MergeResult, Verdict
from mft.modeling.base import read_model_config
from mft.process import peak_rss_bytes

if TYPE_CHECKING:
    from mft.merging.blocks import Block
    from mft.merging.lora import LoraAdapter
    from mft.merging.reader import SafetensorsReader

logger = logging.getLogger(__name__)

RESULT = "merge.json"
SAFETENSORS_NAMES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
Progress = Callable[[int, int], None]
Finish = Callable[[Path, dict[str, Any]], Mapping[str, dict[str, Any]]]
"""(folder, what its manifest will say) -> hashes that it has made of files, as `folder_hashes` gives them."""


def merge(base: Path, adapter: Path, out: Path, options: MergeOptions, *, prompt_format: str | dict[str, Any] | None = None,
          overwrite: bool = False, progress: Progress | None = None, finish: Finish | None = None) -> MergeResult:
    """Write `out`: the base with W + scale * B @ A in place of every W that the adapter touches, and its trained token rows.

    Weights stream through blocks of a few MB; whatever the model's size, the merge holds less than 1 GB. `prompt_format`
    names the format of the written chat template; by default the one that the adapter's `mft.json` names. With neither,
    the base's tokenizer files are copied as they are. `progress(done, total)` counts bytes written, then bytes verified. `finish` writes
    what else belongs into the folder (its card) before the manifest is made.

    Raises:
        ModelError: base or adapter cannot be merged as asked; the message names the file or tensor.
        OutputError: `out` exists and is not empty, unless `overwrite`; or the disk is full.
        CheckFailed: verification found a fault; nothing is left at `out`.
    """
    from mft.merging.folder import load_format, write_model_config, write_tokenizer
    from mft.merging.lora import LoraAdapter
    from mft.merging.reader import open_model

    started = time.perf_counter()
    _check_places(base, adapter, out)
    seconds: dict[str, float] = {}
    with ExitStack() as stack:
        memory = stack.enter_context(MemoryWatch())
        base_config = read_model_config(base)
        weights, lora = stack.enter_context(open_model(base)), stack.enter_context(LoraAdapter(adapter))
        _refuse_quantised(base, base_config, weights)
        lora.check_against(weights.tensors, base_config)
        origin = read_origin(adapter)
        format_name = prompt_format or origin.format
        known_format = load_format(base, format_name)
        folder = stack.enter_context(atomic_folder(out, replace=overwrite))
        with _timed(seconds, "hash"):
            base_files = hash_files([base / "config.json", *sorted({tensor.path for tensor in weights.tensors.values()})])
            check_base(base, origin, base_files)
        with _timed(seconds, "merge"):
            plan = _write_weights(weights, lora, folder, options, progress)
        write_model_config(base_config, options.dtype, folder)
        write_tokenizer(base, known_format, folder)
        with _timed(seconds, "verify"):
            verdict = _verify(base, weights, lora, folder, options, plan, progress)
        result = MergeResult(
            tensors=len(weights.tensors), merged=len(lora.targets), verify=options.verify, max_abs_diff=verdict.max_abs_diff,
            tolerance=verdict.tolerance, reference=verdict.reference, kl=verdict.kl, top1_agreement=verdict.top1_agreement,
            peak_rss_bytes=peak_rss_bytes(), anonymous_bytes=memory.grown_bytes, seconds=time.perf_counter() - started,
            stage_seconds=seconds)
        write_json(folder / RESULT, result.to_json())
        facts = {
            "made_by": "mft merge", "options": options.model_dump(),
            "format": known_format and known_format[1].reference, "base": origin.base or base.name,
            "base_files": base_files, "adapter_files": hash_files(sorted(filter(Path.is_file, adapter.iterdir()))),
            "versions": {"mft": __version__, "torch": version("torch"), "python": platform.python_version()}}
        write_manifest(folder, facts, sums=True, known=finish(folder, facts) if finish else None)
    logger.info("merged %d of %d tensors in %.1f s", result.merged, result.tensors, result.seconds)
    return result


def _check_places(base: Path, adapter: Path, out: Path) -> None:
    """The output may be neither of the inputs, nor hold one: with `overwrite` it would be lost."""
    for what, folder in (("base", base), ("adapter", adapter)):
        if folder.resolve().is_relative_to(out.resolve()):
            raise OutputError(f"{out}: is or holds the {what} folder; give another --out")


def _refuse_quantised(base: Path, config: dict[str, Any], weights: "SafetensorsReader") -> None:
    method = (config.get("quantization_config") or {}).get("quant_method", "an unknown method")
    packed = [tensor for tensor in weights.tensors.values() if not tensor.is_floating]
    if "quantization_config" in config and packed:
        raise ModelError(f"{base}: is quantised ({method}; '{packed[0].name}' is {packed[0].dtype}); merge onto the original weights")


def _write_weights(weights: "SafetensorsReader", lora: "LoraAdapter", folder: Path, options: MergeOptions,
                   progress: Progress | None) -> "list[Block]":
    """Write the weight files; returns the blocks that they were cut into."""
    from mft.merging.arithmetic import BlockMerger
    from mft.merging.blocks import for_each_block, plan_blocks
    from mft.merging.writer import ShardWriter, plan_shards

    tensors = list(weights.tensors.values())
    plan = plan_blocks(tensors, lora.targets)
    with ShardWriter(plan_shards(tensors, SAFETENSORS_NAMES[options.dtype], folder, options.shard_bytes)) as writer:
        merger = BlockMerger(weights, lora, writer)
        for_each_block(merger.merge, plan, _reporter(plan, 0, options, progress))
        writer.finish()
    return plan


def _verify(base: Path, weights: "SafetensorsReader", lora: "LoraAdapter", folder: Path, options: MergeOptions, plan: "list[Block]",
            progress: Progress | None) -> Verdict:
    if options.verify == "none":
        return Verdict()
    from mft.merging.verify import verify_layers

    verdict = verify_layers(weights, lora, folder, plan, _reporter(plan, 1, options, progress))
    if options.verify == "logits":
        from mft.merging.logits import verify_logits

        return verify_logits(base, lora.folder, folder, options.dtype)
    return verdict


def _reporter(plan: "list[Block]", step: int, options: MergeOptions, progress: Progress | None) -> "Callable[[Block], None]":
    """Counts the base's bytes over the steps of the merge: writing, and verifying where that is asked for."""
    size = sum(_bytes(block) for block in plan)
    done, total = step * size, size * (1 if options.verify == "none" else 2)

    def report(block: "Block") -> None:
        nonlocal done
        done += _bytes(block)
        if progress:
            progress(done, total)
    return report


def _bytes(block: "Block") -> int:
    return block.num_elements * block.tensor.torch_dtype.itemsize


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
