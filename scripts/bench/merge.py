"""Time `mft merge` against `cp` + fsync of the base, in turns (A B A B) and in one process tree.

    python scripts/bench/merge.py --work /var/tmp/bench                       # a random model of TinyLlama's shape, 1.1B
    python scripts/bench/merge.py --work /var/tmp/bench --base B --adapter A  # yours

Counted for the merge: read, add, write and fsync of the weights. Hashing of the inputs and verification are timed apart.
The base is read once before, so that both find it in the page cache where it fits.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from mft.files import sync_folder
from mft.merging import merge
from mft.merging.config import MergeOptions

LLAMA_1B = {"layers": 22, "hidden": 2048, "ffn": 5632, "heads": 32, "kv_heads": 4, "vocabulary": 32000}


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


def copy_seconds(base: Path, out: Path) -> float:
    """`cp -r` and fsync of everything copied."""
    started = time.perf_counter()
    subprocess.run(["cp", "-rL", str(base), str(out)], check=True)
    sync_folder(out)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the random model and the outputs")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    base, adapter = arguments.base or arguments.work / "base", arguments.adapter or arguments.work / "adapter"
    if not base.exists():
        write_random_llama(base, **LLAMA_1B)
        sync_folder(base)
    if not adapter.exists():
        write_random_adapter(adapter, base)
    out, copies, merges = arguments.work / "out", [], []
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    subprocess.run("cat " + " ".join(f"'{path}'" for path in base.glob("*.safetensors")) + " > /dev/null", shell=True, check=True)
    for _ in range(arguments.rounds):
        copies.append(copy_seconds(base, out))
        shutil.rmtree(out)
        result = merge(base, adapter, out, MergeOptions(verify="none"))
        merges.append(result.stage_seconds["merge"])
        shutil.rmtree(out)
        print(f"cp + fsync {copies[-1]:6.2f} s   merge {merges[-1]:6.2f} s   hashing {result.stage_seconds['hash']:.2f} s   "
              f"anonymous {result.anonymous_bytes / 1e6:.0f} MB   load {os.getloadavg()[0]:.1f}", flush=True)
    ratio = statistics.median(merges) / statistics.median(copies)
    print(f"{size / 1e9:.2f} GB: merge / (cp + fsync) = {ratio:.2f} (medians of {arguments.rounds})")
    result = merge(base, adapter, out, MergeOptions())
    shutil.rmtree(out)
    print(json.dumps(result.to_json(), indent=1))


if __name__ == "__main__":
    main()
