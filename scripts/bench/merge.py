"""Time and memory of `mft merge` against `cp` + fsync of the base, and against PEFT, in turns (A B A B).

    python scripts/bench/merge.py --work /var/tmp/bench --peft                # a random model of TinyLlama's shape, 1.1B
    python scripts/bench/merge.py --work /var/tmp/bench --shape 7b            # of Llama-7B's: 2 x 13.5 GB of disk
    python scripts/bench/merge.py --work /var/tmp/bench --base B --adapter A  # yours

Counted for the merge: read, add, write and fsync of the weights. Hashing and verification are timed apart. The base is read once
before, so that both find it in the page cache where it fits. At the end: a merge verified by layers, with the distance from the NF4
model, and one onto the NF4 weights. A random model is removed after.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mft.files import sync_folder
from mft.merging.config import MergeOptions
from mft.merging.memory import MemoryWatch

LLAMA_1B = {"layers": 22, "hidden": 2048, "ffn": 5632, "heads": 32, "kv_heads": 4, "vocabulary": 32000}
LLAMA_7B = {"layers": 32, "hidden": 4096, "ffn": 11008, "heads": 32, "kv_heads": 32, "vocabulary": 32000}
SHAPES = {"1.1b": LLAMA_1B, "7b": LLAMA_7B}


def write_random_llama(folder: Path, *, layers: int, hidden: int, ffn: int, heads: int, kv_heads: int, vocabulary: int,
                       layers_per_shard: int = 3) -> None:
    """A bf16 Llama of random weights in several shards, one shard in memory at a time."""
    folder.mkdir(parents=True)
    kv = hidden // heads * kv_heads
    shapes = {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
              "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (ffn, hidden), "mlp.up_proj": (ffn, hidden),
              "mlp.down_proj": (hidden, ffn), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}
    ends = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}
    groups = [ends] + [{f"model.layers.{layer}.{name}.weight": shape for layer in range(first, min(first + layers_per_shard, layers))
                        for name, shape in shapes.items()} for first in range(0, layers, layers_per_shard)]
    generator = torch.Generator().manual_seed(1)
    weight_map = {}
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        tensors = {key: torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator) for key, shape in group.items()}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocabulary,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}))


def write_random_adapter(folder: Path, base: Path, rank: int = 16) -> None:
    """An fp32 LoRA adapter in PEFT's layout on every linear layer of the blocks; its deltas are about 3% of the weights."""
    from mft.merging.reader import open_model

    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(2)
    tensors = {}
    with open_model(base) as weights:
        for name, stored in weights.tensors.items():
            if name.endswith("_proj.weight"):
                module = "base_model.model." + name.removesuffix(".weight")
                tensors[module + ".lora_A.weight"] = torch.randn(rank, stored.shape[1], generator=generator) * 0.01
                tensors[module + ".lora_B.weight"] = torch.randn(stored.shape[0], rank, generator=generator) * 0.01
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "bias": "none", "init_lora_weights": True,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], "lora_dropout": 0.0}))
    (folder / "mft.json").write_text(json.dumps({
        "base": str(base), "base_files": {}, "format": "", "context": 2048,
        "quantization": {"type": "nf4", "double_quant": True, "compute_dtype": "bf16"}}))


def copy_seconds(base: Path, out: Path) -> float:
    """`cp -r` and fsync of everything copied."""
    started = time.perf_counter()
    subprocess.run(["cp", "-rL", str(base), str(out)], check=True)
    sync_folder(out)
    return time.perf_counter() - started


def run_merge(base: Path, adapter: Path, out: Path, verify: str, onto: str) -> dict[str, Any]:
    """One merge; what it says of itself, and the seconds that the manifest's hashes took after it."""
    from mft.merging import merge

    started = time.perf_counter()
    result = merge(base, adapter, out, MergeOptions.model_validate({"verify": verify, "onto": onto})).to_json()
    return result | {"manifest_seconds": time.perf_counter() - started - result["seconds"]}


def run_peft(base: Path, adapter: Path, out: Path) -> dict[str, Any]:
    """PEFT's merge of a bf16 base, saved and flushed."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with MemoryWatch() as memory:
        started = time.perf_counter()
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16), str(adapter))
        model.merge_and_unload(safe_merge=False).save_pretrained(out, max_shard_size="5GB")
        sync_folder(out)
        return {"seconds": time.perf_counter() - started, "anonymous_bytes": memory.grown_bytes}


def in_a_process(what: str, base: Path, adapter: Path, out: Path) -> dict[str, Any]:
    """A process of its own for each measurement: memory that earlier work left free would not be counted."""
    command = [sys.executable, __file__, "--work", str(out.parent), "--base", str(base), "--adapter", str(adapter), "--only", what]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def said(found: dict[str, Any]) -> str:
    """Memory of one measurement, and how busy the machine was."""
    return f"anonymous {found['anonymous_bytes'] / 1e6:.0f} MB   load {os.getloadavg()[0]:.1f}"


def measure(base: Path, adapter: Path, work: Path, rounds: int, peft: bool) -> None:
    """Copies and merges in turns, then PEFT, then verified merges; one line each."""
    out = work / "out"
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    print(f"{size / 1e9:.2f} GB, torch threads {torch.get_num_threads()}", flush=True)
    copies, merges, pefts = [], [], []
    for _ in range(rounds):
        subprocess.run("cat " + " ".join(f"'{path}'" for path in base.glob("*.safetensors")) + " > /dev/null", shell=True, check=True)
        copies.append(copy_seconds(base, out))
        shutil.rmtree(out)
        found = in_a_process("none", base, adapter, out)
        shutil.rmtree(out)
        merges.append(found["stage_seconds"]["merge"])
        print(f"cp + fsync {copies[-1]:6.2f} s   merge {merges[-1]:6.2f} s   hashing {found['stage_seconds']['hash']:.2f} s + manifest "
              f"{found['manifest_seconds']:.2f} s   {said(found)}", flush=True)
        if peft:
            pefts.append(in_a_process("peft", base, adapter, out))
            shutil.rmtree(out)
            print(f"peft {pefts[-1]['seconds']:6.2f} s   {said(pefts[-1])}", flush=True)
    print(f"merge / (cp + fsync) = {statistics.median(merges) / statistics.median(copies):.2f} (medians of {rounds})", flush=True)
    if pefts:
        print(f"merge / peft = {statistics.median(merges) / statistics.median([found['seconds'] for found in pefts]):.2f}", flush=True)
    for what in ("layers", "quantised"):
        print(what, json.dumps(in_a_process(what, base, adapter, out)), f"load {os.getloadavg()[0]:.1f}", flush=True)
        shutil.rmtree(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the random model and the outputs")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="1.1b", help="of the random model")
    parser.add_argument("--peft", action="store_true", help="measure PEFT's merge too, which holds the whole model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["none", "layers", "quantised", "peft"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    base, adapter = arguments.base or arguments.work / "base", arguments.adapter or arguments.work / "adapter"
    if arguments.only:
        out = arguments.work / "out"
        print(json.dumps(run_peft(base, adapter, out) if arguments.only == "peft" else run_merge(
            base, adapter, out, "layers" if arguments.only == "quantised" else arguments.only,
            "quantised" if arguments.only == "quantised" else "original")))
        return
    if not base.exists():
        write_random_llama(base, **SHAPES[arguments.shape])
        sync_folder(base)
    if not adapter.exists():
        write_random_adapter(adapter, base)
    measure(base, adapter, arguments.work, arguments.rounds, arguments.peft)
    if not arguments.base:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
