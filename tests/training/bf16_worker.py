"""Run by torchrun: `mft train` as it is, noting the types of the trained weights in every step and their values before the last one.

    torchrun --nproc-per-node 2 bf16_worker.py OUT NUDGE train CONFIG ...      rank R writes OUT/types-R.json; rank 0 OUT/before.pt too

NUDGE: by how much of itself each trained weight is moved before the first step.
"""

import json
import sys
from pathlib import Path

import torch

from mft.cli.main import main
from mft.training.engine_state import trainable_state
from mft.training.ranks import is_first_rank, rank
from mft.training.trainer import MultiTaskTrainer


def types_of(trainer):
    """Of the parameters that train, of what ZeRO-3 keeps of them here, of their optimizer's copies."""
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    held = [getattr(parameter, "ds_tensor", parameter) for parameter in trained]
    zero = getattr(trainer.model_wrapped, "optimizer", None)
    masters = getattr(zero, "fp32_partitioned_groups_flat", None) or getattr(zero, "single_partition_of_fp32_groups", [])
    return {str(tensor.dtype) for tensor in [*trained, *held, *masters]}


def base_types_of(trainer):
    """Of the base's weights, and of ZeRO-3's parts of them."""
    frozen = [parameter for parameter in trainer.model.parameters() if not parameter.requires_grad]
    return {str(getattr(parameter, "ds_tensor", parameter).dtype) for parameter in frozen}


def watch(out, nudge):
    found = set()
    compute_loss = MultiTaskTrainer.compute_loss

    def watched(trainer, *args, **options):
        if nudge and not found:
            for parameter in trainer.model.parameters():
                if parameter.requires_grad:
                    parameter.data.mul_(1 + nudge)
        loss = compute_loss(trainer, *args, **options)
        found.update(types_of(trainer))
        if trainer.state.global_step == trainer.state.max_steps - 1:
            state = trainable_state(trainer)
            if is_first_rank():
                torch.save(state, out / "before.pt")
            types = {"trained": sorted(found), "base": sorted(base_types_of(trainer))}
            (out / f"types-{rank()}.json").write_text(json.dumps(types))
        return loss

    MultiTaskTrainer.compute_loss = watched


if __name__ == "__main__":
    watch(Path(sys.argv[1]), float(sys.argv[2]))
    main(sys.argv[3:])
