"""The files of a quantised model beside its weights: configs that engines read, tokenizer, template, generation config."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mft.files import read_json, write_json
from mft.formats.base import PromptFormat
from mft.modeling.base import read_model_config
from mft.quantization.config import AwqJob, GptqJob, Job, NearestJob
from mft.tokenization.compatibility import stop_ids
from mft.tokenization.release import write_release_tokenizer

if TYPE_CHECKING:
    from mft.tokenization.load import TextTokenizer

FORMAT, GENERATION, QUANTIZE = "mft.json", "generation_config.json", "quantize_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
                   "vocab.json", "merges.txt", CHAT_TEMPLATE)


def write_configs(model: Path, folder: Path, job: Job, facts: dict[str, Any], source: str) -> None:
    """config.json with `quantization_config` and quantize_config.json, for the methods that have them.

    The same facts stand in both: engines read one or the other. `damp_percent` is the largest that was used.
    """
    if isinstance(job, GptqJob | NearestJob):
        settings = {
            "bits": job.bits, "group_size": job.group_size, "desc_act": isinstance(job, GptqJob) and job.desc_act, "sym": True,
            "true_sequential": True, "lm_head": False, "damp_percent": facts.get("damp") if isinstance(job, GptqJob) else None,
            "quant_method": "gptq", "checkpoint_format": "gptq", "pack_dtype": "int32"}
        settings = {key: value for key, value in settings.items() if value is not None}
        write_json(folder / "config.json", read_model_config(model) | {"quantization_config": settings})
        write_json(folder / QUANTIZE, {**settings, "model_name_or_path": source, "model_file_base_name": "model",
                                       "quantizer": facts.get("quantizer")})
    elif isinstance(job, AwqJob):
        settings = read_json(folder / "config.json")["quantization_config"]
        write_json(folder / "config.json", read_model_config(model) | {"quantization_config": settings})
        write_json(folder / QUANTIZE, {**settings, "model_name_or_path": source, "model_file_base_name": "model"})


def write_companions(model: Path, folder: Path, prompt_format: PromptFormat | None, tokenizer: "TextTokenizer | None") -> None:
    """Tokenizer, chat template, generation config and the name of the format.

    A model that mft has written has all of them, right for its format: they are copied. For any other the format's are made.
    """
    for name in (*TOKENIZER_FILES, GENERATION, FORMAT):
        if (model / name).is_file():
            shutil.copyfile(model / name, folder / name)
    if prompt_format is None or tokenizer is None or (model / FORMAT).is_file():
        return
    write_release_tokenizer(tokenizer, prompt_format, folder)
    write_json(folder / FORMAT, {"format": prompt_format.reference})
    ends = stop_ids(prompt_format, tokenizer)
    ids = {"bos_token_id": tokenizer.bos_id, "pad_token_id": tokenizer.pad_id, "eos_token_id": ends if len(ends) > 1 else ends[0]}
    write_json(folder / GENERATION, {key: value for key, value in ids.items() if value is not None} | {"do_sample": False})


def weights_bytes(folder: Path) -> int:
    """Bytes of the files that hold weights."""
    return sum(path.stat().st_size for pattern in ("*.safetensors", "*.gguf") for path in folder.glob(pattern))
