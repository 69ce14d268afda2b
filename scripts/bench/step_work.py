"""What all contestants of scripts/bench/step.py do: one step's packed rows, and a random model of a shape, made on the device."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from random_llama import random_llama
from torch import nn

from mft.conversation import Conversation
from mft.data.readers.conversations import read_conversations
from mft.errors import MftError
from mft.formats.registry import get
from mft.modeling.adapters import add_adapter
from mft.modeling.base import resolve_base
from mft.modeling.compute import cpu_has_bf16
from mft.modeling.config import AdapterConfig, QuantizationConfig
from mft.tokenization.encode import TokenizedSample, encode
from mft.tokenization.load import load_tokenizer
from mft.tokenization.packing import pack

BASE = "tiny-code-llama"
"""Its tokenizer makes the ids, which are below every shape's vocabulary."""

SHAPES: dict[str, dict[str, Any]] = {
    "34b": {"model_type": "llama", "num_hidden_layers": 48, "hidden_size": 8192, "intermediate_size": 22016, "num_attention_heads": 64,
            "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 16384, "rope_theta": 1e6},
    "110m": {"model_type": "llama", "num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 2048, "num_attention_heads": 12,
             "num_key_value_heads": 12, "vocab_size": 32000, "max_position_embeddings": 16384, "tie_word_embeddings": True},
    "tiny": {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 704, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 4096, "max_position_embeddings": 16384}}


@dataclass(frozen=True, slots=True)
class StepWork:
    """One optimizer step, made again and again: `samples` as (ids, labels), and which of them share a row. `source`: of the samples."""

    config: dict[str, Any]
    context: int
    samples: list[tuple[list[int], list[int]]]
    rows: list[list[int]]
    rank: int
    nf4: bool
    source: str
    device: str = field(default_factory=lambda: "cuda" if torch.cuda.is_available() else "cpu")

    @property
    def tokens(self) -> int:
        """Real tokens of the step: there is no padding among them."""
        return sum(len(ids) for ids, _ in self.samples)

    @property
    def trained_tokens(self) -> int:
        return sum(label != -100 for _, labels in self.samples for label in labels)

    @property
    def lengths(self) -> list[int]:
        return [len(ids) for ids, _ in self.samples]

    @property
    def bf16(self) -> bool:
        """What the hardware computes in: bf16, or float32 on a CPU without it."""
        return self.device == "cuda" or cpu_has_bf16()

    @property
    def adapter(self) -> AdapterConfig:
        """No dropout, so that all can be compared."""
        return AdapterConfig(rank=self.rank, alpha=2 * self.rank, dropout=0.0)

    @property
    def quantization(self) -> QuantizationConfig:
        return QuantizationConfig(type="nf4" if self.nf4 else "none", compute_dtype="bf16" if self.bf16 else "fp32")

    def tokenized(self) -> list[TokenizedSample]:
        """As mft's trainer takes them: one task."""
        return [TokenizedSample(tuple(ids), tuple(labels), 0, f"s{index}") for index, (ids, labels) in enumerate(self.samples)]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "StepWork":
        facts = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**facts, "samples": [tuple(pair) for pair in facts["samples"]]})


def make_work(shape: str, *, layers: int | None, context: int, rows: int, rank: int, nf4: bool, dense: bool, data: Path | None) -> StepWork:
    """The first rows that the samples pack into. `dense`: one sample a row, as long as the row.

    Raises:
        MftError: the data cannot be read, or is too little.
    """
    config = dict(SHAPES[shape])
    if layers:
        config["num_hidden_layers"] = layers
    samples, source = _random(rows, context, config["vocab_size"]) if dense else _samples(data, context, rows)
    packed = pack([len(ids) for ids, _ in samples], context, seed=1)
    if len(packed) < rows:
        raise MftError(f"{source}: its samples fill {len(packed)} rows of {context} tokens, and {rows} are asked for")
    # The fullest rows come first where there are more than enough.
    fullest = sorted(packed, key=lambda row: -sum(len(samples[index][0]) for index in row))[:rows]
    chosen = [index for row in fullest for index in row]
    place = {index: number for number, index in enumerate(chosen)}
    return StepWork(config, context, [samples[index] for index in chosen], [[place[index] for index in row] for row in fullest],
                    rank, nf4, source)


def _samples(data: Path | None, context: int, rows: int) -> tuple[list[tuple[list[int], list[int]]], str]:
    """Real conversations, or random ones of like lengths where no data is at hand."""
    shared = os.environ.get("MFT_SHARED_DATA")
    if data is None and shared:
        data = Path(shared) / "mft" / "docstring_gen.jsonl.gz"
    if data is None or not data.is_file():
        return _random(12 * rows, context, 4096, shortest=context // 16, longest=context // 4)
    tokenizer, prompt_format = load_tokenizer(resolve_base(BASE)), get("codefuse")
    made: list[tuple[list[int], list[int]]] = []
    filled = 0
    for conversation in read_conversations(data):
        sample = _encoded(conversation, prompt_format, tokenizer)
        if sample is not None and len(sample[0]) <= context:
            made.append(sample)
            filled += len(sample[0])
        if filled > 2 * rows * context:
            break
    return made, str(data)


def _encoded(conversation: Conversation, prompt_format: Any, tokenizer: Any) -> tuple[list[int], list[int]] | None:
    try:
        sample = encode(conversation, prompt_format, tokenizer)
    except MftError:   # a row that mft drops
        return None
    return list(sample.input_ids), list(sample.labels)


def _random(number: int, context: int, vocabulary: int, shortest: int | None = None,
            longest: int | None = None) -> tuple[list[tuple[list[int], list[int]]], str]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(number):
        length = context if longest is None else int(torch.randint(shortest or 2, longest, (1,), generator=generator))
        ids = torch.randint(3, min(vocabulary, 4096), (length,), generator=generator).tolist()
        prompt = max(1, length // 3)
        made.append((ids, [-100] * prompt + ids[prompt:]))
    return made, "random ids"


def make_model(work: StepWork, attention: str, before: Any = None) -> PeftModel:
    """The random model with its adapter, whose B is not zero, so that every tensor has a gradient. `before` sees the bare model."""
    model = random_llama(work.config, work.quantization, torch.device(work.device), attention)
    if before is not None:
        before(model)
    adapted = add_adapter(model, work.adapter, seed=1)
    generator = torch.Generator().manual_seed(7)
    for name, parameter in sorted(adapted.named_parameters()):
        if "lora_B" in name:
            drawn = torch.randn(parameter.shape, generator=generator) * 0.02
            with torch.no_grad():
                parameter.copy_(drawn)
    return adapted


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Of all that trains, float32 on the host."""
    return {name: parameter.grad.detach().float().cpu() if parameter.grad is not None else torch.zeros(parameter.shape)
            for name, parameter in model.named_parameters() if parameter.requires_grad}


def tiny_tokenizer_folder() -> Path:
    """For a peer that must be given one."""
    return resolve_base(BASE)


