"""The steps of a merge: write the weights, write what stands beside them, check all of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mft.files import write_json
from mft.merging.arithmetic import BlockMerger
from mft.merging.blocks import Block, for_each_block, plan_blocks
from mft.merging.distance import TrainedDistance, TrainedModel, sum_up
from mft.merging.folder import write_model_config, write_tokenizer
from mft.merging.job import MergeJob
from mft.merging.merge import DISTANCES
from mft.merging.result import Verdict
from mft.merging.verify import verify_layers
from mft.merging.writer import ShardWriter, check_space, plan_shards

SAFETENSORS_NAMES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
Progress = Callable[[int, int], None]


def write_weights(job: MergeJob, folder: Path, progress: Progress | None) -> tuple[list[Block], int]:
    """Write the weight files that are not there yet; returns the blocks of all of them, and the bytes that were there.

    Raises:
        ModelError: a value is not finite in the output dtype. OutputError: the disk has no room.
    """
    tensors = list(job.plan.tensors.values())
    shards = plan_shards(tensors, SAFETENSORS_NAMES[job.options.dtype], folder, job.options.shard_bytes)
    blocks = plan_blocks(tensors, job.cut_by_rows)
    with ShardWriter(shards) as writer:
        check_space(folder, writer.missing_at_start)
        merger = BlockMerger(job.values, job.changes, writer)
        left = [block for block in blocks if block.tensor.name not in writer.done]
        for_each_block(merger.merge, left, _reporter(job, blocks, sum(map(_bytes, blocks)) - sum(map(_bytes, left)), progress))
        writer.finish()
        return blocks, writer.total_bytes - writer.missing_at_start


def write_folder(job: MergeJob, folder: Path) -> None:
    """Write config, generation config and tokenizer."""
    write_model_config(job.config, job.options.dtype, folder)
    write_tokenizer(job.tokenizer, job.known_format, folder)


def verify(job: MergeJob, folder: Path, blocks: list[Block], progress: Progress | None) -> tuple[Verdict, TrainedDistance | None]:
    """Check the folder as the options ask for, and measure its distance from the model that was trained.

    Raises:
        CheckFailed: a tensor, or what the model says, is not that of base + adapter.
    """
    if job.options.verify == "none":
        return Verdict(), None
    onto_it = job.options.onto == "quantised"
    trained = TrainedModel(job.round_trip, onto_it) if job.round_trip else None
    size = sum(map(_bytes, blocks))
    verdict, found = verify_layers(job.values, job.plan.tensors, job.changes, folder, blocks, _reporter(job, blocks, size, progress),
                                   trained)
    assert not trained or job.quantization
    summed = sum_up(found, f"nf4{', double' if job.quantization and job.quantization.double_quant else ''}")
    if summed is not None:
        write_json(folder / DISTANCES, summed[1])
    distance = summed[0] if summed else None
    if job.options.verify == "layers":
        return verdict, distance
    from mft.merging.logits import Unmerged, verify_logits

    adapters = tuple(zip((adapter.folder for adapter in job.changes.adapters), job.changes.weights, strict=True))
    rounded = (job.round_trip.names, job.quantization) if job.round_trip and job.quantization else None
    vocabulary = job.plan.config.get("vocab_size")
    verdict, from_trained = verify_logits(Unmerged(job.base, adapters, vocabulary, rounded if onto_it else None), folder, job.options.dtype,
                                          rounded and Unmerged(job.base, adapters, vocabulary, rounded))
    if distance and from_trained:
        distance = replace(distance, kl=from_trained.kl, top1_agreement=from_trained.top1_agreement)
    return verdict, distance


def _reporter(job: MergeJob, blocks: list[Block], done: int, progress: Progress | None) -> Callable[[Block], None]:
    """Counts the bytes that are read over the steps of the merge: writing, and verifying where that is asked for."""
    total = sum(map(_bytes, blocks)) * (1 if job.options.verify == "none" else 2)

    def report(block: Block) -> None:
        nonlocal done
        done += _bytes(block)
        if progress:
            progress(done, total)
    return report


def _bytes(block: Block) -> int:
    return block.num_elements * block.tensor.torch_dtype.itemsize
