"""One cell of the memory table, in a process of its own: `memory_cell.py MODEL PROMPT NEW`, tokens in and out; 0 0 is idle.

Started as a script, also in the quantiser's environment, where mft is not: it imports nothing of mft but reads its own memory with
mft/process.py, which needs the standard library alone. Prints one line of JSON.
"""

import gc
import importlib
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

FEWEST_CORES = 4


def main(model: str, prompt: int, new: int) -> dict[str, Any]:
    cores = os.cpu_count() or 1
    os.cpu_count = lambda: max(FEWEST_CORES, cores)     # as in worker.py: gptqmodel's import needs it
    memory = runpy.run_path(str(Path(__file__).resolve().parent.parent / "process.py"))
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    cuda = torch.cuda.is_available()
    # On the CPU the libraries are the runtime: what they take before there are weights, all that loading imports included.
    config = AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    if (getattr(config, "quantization_config", None) or {}).get("quant_method") in ("gptq", "awq"):
        importlib.import_module("gptqmodel")
    AutoModelForCausalLM._model_mapping[type(config)]
    runtime = memory["reset_peak_rss"]()
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, device_map={"": "cuda:0" if cuda else "cpu"},
                                                  local_files_only=True, trust_remote_code=False).eval()
    gc.collect()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    idle = memory["reset_peak_rss"]()
    if new:
        ids = torch.randint(3, loaded.config.get_text_config().vocab_size, (1, prompt), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            out = loaded.generate(ids.to(loaded.device), attention_mask=torch.ones_like(ids).to(loaded.device), do_sample=False,
                                  min_new_tokens=new, max_new_tokens=new, eos_token_id=None)
        assert out.shape[1] == prompt + new, out.shape
    facts: dict[str, Any] = {"device": torch.cuda.get_device_name() if cuda else "cpu", "runtime_bytes": runtime, "idle_bytes": idle,
                             "peak_bytes": memory["peak_rss_bytes"]()}
    if cuda:
        free, total = torch.cuda.mem_get_info()
        facts |= {"peak_bytes": torch.cuda.max_memory_allocated(), "reserved_bytes": torch.cuda.max_memory_reserved(),
                  "device_used_bytes": total - free, "runtime_bytes": 0}
    return facts


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))) + "\n")
