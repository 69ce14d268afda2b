"""Small base and adapter folders for the merge's tests, written without mft."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

SHAPES = {"q_proj": (64, 64), "k_proj": (32, 64), "v_proj": (32, 64), "o_proj": (64, 64),
          "gate_proj": (160, 64), "up_proj": (160, 64), "down_proj": (64, 160)}
PARENTS = {name: "self_attn" if name in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp" for name in SHAPES}


def write_llama(folder: Path, *, vocabulary: int = 320, dtype: torch.dtype = torch.bfloat16, max_shard_size: str = "100KB") -> Path:
    """A random Llama: 2 layers, hidden size 64, 4 heads on 2 key-value heads."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=vocabulary, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=128)
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def lora_tensors(rank: int = 8, seed: int = 1) -> dict[str, torch.Tensor]:
    """fp32 A and B, not zero, for all linear layers of `write_llama`."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for layer in range(2):
        for name, (rows, columns) in SHAPES.items():
            module = f"base_model.model.model.layers.{layer}.{PARENTS[name]}.{name}"
            tensors[f"{module}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) * 0.1
            tensors[f"{module}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) * 0.02
    return tensors


def write_adapter(folder: Path, tensors: dict[str, torch.Tensor] | None = None, **config: Any) -> Path:
    """An adapter folder as PEFT writes it; `config` overrides keys of adapter_config.json."""
    folder.mkdir(parents=True)
    save_file(lora_tensors() if tensors is None else tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    plain = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "bias": "none",
             "init_lora_weights": True, "target_modules": sorted(SHAPES), "use_rslora": False, "fan_in_fan_out": False,
             "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, "inference_mode": True,
             "base_model_name_or_path": None}
    (folder / "adapter_config.json").write_text(json.dumps(plain | config))
    return folder


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model folder, through the safetensors library."""
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def write_flat_model(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    """A folder with any tensors in one file and a config.json."""
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "torch_dtype": "bfloat16"} | config))
    return folder


def partials(folder: Path) -> list[str]:
    """Unfinished output folders left beside others."""
    return [path.name for path in folder.iterdir() if path.name.endswith(".partial")]
