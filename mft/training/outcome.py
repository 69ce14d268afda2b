"""What a run leaves: the adapter folder, and what run.json says of the losses."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from mft import __version__
from mft.files import atomic_folder, write_json, write_manifest
from mft.formats.base import PromptFormat
from mft.modeling.adapters import AdapterFacts, save_trained, write_adapter_facts
from mft.tokenization.load import TextTokenizer
from mft.tokenization.release import release_generation_config, write_release_tokenizer


def save_adapter(model: PreTrainedModel | PeftModel, facts: AdapterFacts, tokenizer: TextTokenizer, prompt_format: PromptFormat,
                 folder: Path, weights: dict[str, Tensor]) -> None:
    """Write an adapter folder whole: PEFT's files (float32), `mft.json`, tokenizer, chat template, end tokens, manifest.

    `weights`: the trained parameters by name, gathered from all ranks.
    """
    with atomic_folder(folder, replace=True) as partial:
        save_trained(model, weights, facts.quantization, partial)
        write_adapter_facts(partial, facts)
        write_release_tokenizer(tokenizer, prompt_format, partial)
        write_json(partial / "generation_config.json", release_generation_config({}, tokenizer, prompt_format))
        write_manifest(partial, {"made_by": "mft train", "mft": __version__, **facts.to_json()})


def last_losses(metrics: Path, task_names: Sequence[str]) -> dict[str, Any]:
    """`loss` and `tasks.<t>.loss`: means over the last tenth of the logged steps (tasks: over their tokens there), in nats;
    `tasks.<t>.tokens`: trained tokens of the whole run, the steps before a resumption included.
    """
    lines = [line for line in map(json.loads, metrics.read_text(encoding="utf-8").splitlines()) if "loss" in line]
    tail = lines[-max(1, len(lines) // 10):]
    tasks = {}
    for name in task_names:
        tokens = sum(line[f"tokens/task/{name}"] for line in tail)
        total = sum(line.get(f"loss/task/{name}", 0.0) * line[f"tokens/task/{name}"] for line in tail)
        tasks[name] = {"loss": total / tokens if tokens else None, "tokens": sum(line[f"tokens/task/{name}"] for line in lines)}
    return {"loss": sum(line["loss"] for line in tail) / len(tail), "tasks": tasks}
