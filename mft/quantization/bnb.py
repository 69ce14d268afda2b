"""bitsandbytes' formats as folders: what transformers writes of a model that it has quantised while loading."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from mft.modeling.compute import device
from mft.quantization.config import Int8Job, Nf4Job


def save_quantised(model: Path, out: Path, job: Nf4Job | Int8Job) -> dict[str, Any]:
    """Load `model` quantised as the job says and write weights and config.json into `out`; returns versions and device.

    What is not quantised stays in bf16, and so does what NF4 computes in, whatever this machine itself would compute in.
    """
    if isinstance(job, Nf4Job):
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=job.double_quant,
                                    bnb_4bit_compute_dtype=torch.bfloat16)
    else:
        config = BitsAndBytesConfig(load_in_8bit=True)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, device_map={"": device()}, quantization_config=config,
                                                  use_safetensors=True, local_files_only=True, trust_remote_code=False)
    loaded.save_pretrained(out)
    return {"versions": {name: version(name) for name in ("bitsandbytes", "torch", "transformers")}, "device": str(device())}
