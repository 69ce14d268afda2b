"""Run by the interpreter of the quantiser's environment: `engine_answers.py ENGINE FOLDER`; prints JSON: logits of fixed ids and an answer.

ENGINE: `transformers`, whose AutoModelForCausalLM finds gptqmodel's kernels, or `gptqmodel`.
"""

import json
import os
import sys

cores = os.cpu_count() or 1
os.cpu_count = lambda: max(4, cores)

import torch  # noqa: E402

engine, folder = sys.argv[1:3]
if engine == "gptqmodel":
    from gptqmodel import BACKEND, GPTQModel

    model = GPTQModel.load(folder, device="cpu", backend=BACKEND.TORCH).model
else:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)

ids = torch.arange(300, 340)[None]
with torch.no_grad():
    logits = model(ids).logits[0].float()
    answer = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[0, 40:]
linear = next(module for name, module in model.named_modules() if name.endswith("layers.0.mlp.down_proj"))
sys.stdout.write("\n" + json.dumps({"linear": type(linear).__module__, "argmax": logits.argmax(-1).tolist(), "last": logits[-1].tolist(),
                                    "answer": answer.tolist()}) + "\n")
