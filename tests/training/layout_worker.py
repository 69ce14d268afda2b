"""Run by torchrun: one optimizer step of the same 12 samples in every mode under one engine; rank 0 writes losses and gradients.

    torchrun --nproc-per-node R layout_worker.py ENGINE OUT      ENGINE: none, ddp, zero1, zero2, zero3, fsdp
"""

import json
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from training.small_model import make_trainer, random_samples, rows_of, small_model
from transformers import TrainerCallback

from mft.tokenization.packing import pack

BALANCES = ("token_mean", "sample_mean", "task_token_mean", "task_sample_mean")
ALONE = [[index] for index in range(12)]
LAYOUTS = {"one by one": (ALONE, 1), "packed": (pack([len(sample.input_ids) for sample in random_samples()], 128, seed=4), 1),
           "two side by side": (ALONE, 2), "ragged": ([*ALONE[:7], [7, 8, 9, 10, 11]], 1)}
"""Name -> packed rows and how many of them are a micro-batch. `ragged`: eight rows, of which one rank of three gets two."""


class KeepGradients(TrainerCallback):
    def __init__(self):
        self.gradients = {}

    def on_train_begin(self, args, state, control, model=None, **_):
        self.model = model

    def on_pre_optimizer_step(self, args, state, control, **_):
        if not self.gradients:
            self.gradients = {name: whole(p.grad) for name, p in self.model.named_parameters() if p.requires_grad}


def whole(gradient):
    gradient = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
    return gradient.detach().clone().cpu()


def keep_deepspeed_gradients(keep):
    """DeepSpeed steps inside `backward`, and its gradients are gone afterwards."""
    from deepspeed.runtime.engine import DeepSpeedEngine
    from deepspeed.utils import safe_get_full_grad

    step = DeepSpeedEngine.step

    def kept_step(engine, *args, **options):
        if not keep.gradients:
            keep.gradients = {name.removeprefix("module."): whole(safe_get_full_grad(p)).reshape(getattr(p, "ds_shape", p.shape))
                              for name, p in engine.module.named_parameters() if p.requires_grad}
        return step(engine, *args, **options)

    DeepSpeedEngine.step = kept_step
    return lambda: setattr(DeepSpeedEngine, "step", step)


def one_step(engine, layout, micro, folder, balance):
    folder.mkdir(parents=True, exist_ok=True)
    weights = {"b": 2.0} if balance.startswith("task_") else None
    keep = KeepGradients()
    restore = keep_deepspeed_gradients(keep) if engine.startswith("zero") else lambda: None
    trainer = make_trainer(small_model, rows_of(random_samples(), layout), folder, micro=micro, balance=balance, weights=weights,
                           engine=engine, clip=1e9)
    trainer.add_callback(keep)
    trainer.train()
    restore()
    main = trainer.is_world_process_zero()
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0]) if main else {}
    return line, {name.replace("_fsdp_wrapped_module.", ""): gradient for name, gradient in keep.gradients.items()}


def main(engine, out):
    results = {}
    for balance in BALANCES:
        for number, (name, (layout, micro)) in enumerate(LAYOUTS.items()):
            AcceleratorState._reset_state(reset_partial_state=False)
            line, gradients = one_step(engine, layout, micro, out / f"{balance}-{number}", balance)
            results[balance, name] = {"line": line, "gradients": gradients}
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    torch.save(results, out / f"rank{torch.distributed.get_rank() if torch.distributed.is_initialized() else 0}.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
