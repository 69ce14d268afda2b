"""Run with TRITON_INTERPRET=1: how far one of Liger's kernels is from torch, in a small Llama on the CPU, in float32.

    python liger_worker.py PART      PART: norms, rope, mlp
"""

import json
import sys

import numpy as np
import torch
import triton.language as tl
import triton.runtime.interpreter as interpreter
from transformers.models.llama import modeling_llama

from mft.modeling.attention import probe_model
from mft.modeling.kernels import liger_kernels

LENGTHS = (10, 14)


def mend_interpreter(launches):
    """triton 3.9's interpreter leaves Python floats as they are, and cannot run libdevice's rsqrt; a GPU's compiler does both."""
    import liger_kernel.ops.rms_norm as rms_norm

    convert, run = interpreter._implicit_cvt, interpreter.GridExecutor.__call__

    def converted(value):
        if isinstance(value, float):
            return tl.tensor(interpreter.TensorHandle(np.array([value], dtype=np.float32), tl.float32), tl.float32)
        return convert(value)

    def counted(self, *arguments, **options):
        launches.append(self.fn.__name__)
        return run(self, *arguments, **options)

    interpreter._implicit_cvt, interpreter.GridExecutor.__call__ = converted, counted
    rms_norm.rsqrt = lambda value: tl.rsqrt(value)


def passes(model):
    """Logits of a packed row and the gradients of all weights."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, model.config.vocab_size, (1, sum(LENGTHS)), generator=generator)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    model.zero_grad()
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    (logits * torch.randn(logits.shape, generator=generator)).sum().backward()
    return logits.detach().clone(), {name: weight.grad.clone() for name, weight in model.named_parameters()}


def main(part):
    model = probe_model("sdpa", torch.device("cpu"), torch.float32, (2, 2, 16))
    logits, gradients = passes(model)
    before, launches = dict(vars(modeling_llama)), []
    mend_interpreter(launches)
    with liger_kernels(model, (part,)):
        found, own = passes(model)
    worst = max(((own[name] - gradient).norm() / gradient.norm()).item() for name, gradient in gradients.items())
    print(json.dumps({"launches": len(launches), "kernels": sorted(set(launches)), "gradient": worst,
                      "logits": ((found - logits).norm() / logits.norm()).item(), "names_restored": vars(modeling_llama) == before}))


if __name__ == "__main__":
    main(sys.argv[1])
