"""The files of a merged model beside its weights: config, generation config, tokenizer."""

import shutil
from pathlib import Path
from typing import Any

from mft.errors import ModelError
from mft.files import read_json, write_json
from mft.formats.base import PromptFormat
from mft.merging.origin import FACTS
from mft.tokenization.compatibility import format_for, stop_ids
from mft.tokenization.load import TextTokenizer, load_tokenizer
from mft.tokenization.release import write_release_tokenizer

GENERATION = "generation_config.json"
DTYPE_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
DROPPED_KEYS = ("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff", "_from_model_config")
"""Settings that a generation config may not hold while `do_sample` is false, and the mark of one that nobody wrote."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
                   "vocab.json", "merges.txt", "chat_template.jinja")


def write_model_config(base_config: dict[str, Any], dtype: str, folder: Path) -> None:
    """Write `config.json`: the base's, with the output's dtype and without its quantisation."""
    config = {key: value for key, value in base_config.items() if key != "quantization_config"}
    keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]
    write_json(folder / "config.json", config | dict.fromkeys(keys, DTYPE_NAMES[dtype]))


def load_format(base: Path, name: str | dict[str, Any] | None) -> tuple[TextTokenizer, PromptFormat] | None:
    """The base's tokenizer and the prompt format of this name; None for no name.

    Raises:
        FormatError: there is no such format.
        TokenizerError: the tokenizer cannot be trusted.
    """
    if name is None:
        return None
    tokenizer = load_tokenizer(base)
    return tokenizer, format_for(name, tokenizer)


def write_tokenizer(base: Path, known: tuple[TextTokenizer, PromptFormat] | None, folder: Path) -> None:
    """Write tokenizer, chat template and generation config of the known format; without one, copy the base's files.

    With a format, answers end at its end mark and are greedy unless the caller samples; `mft.json` names it for `mft generate`.
    """
    if known is None:
        for name in (*TOKENIZER_FILES, GENERATION):
            if (base / name).is_file():
                shutil.copyfile(base / name, folder / name)
        return
    tokenizer, prompt_format = known
    write_release_tokenizer(tokenizer, prompt_format, folder)
    write_json(folder / FACTS, {"format": prompt_format.reference})
    write_json(folder / GENERATION, _generation_config(base, tokenizer, prompt_format))


def _generation_config(base: Path, tokenizer: TextTokenizer, prompt_format: PromptFormat) -> dict[str, Any]:
    path = base / GENERATION
    try:
        given: dict[str, Any] = read_json(path) if path.is_file() else {}
        ends = given.get("eos_token_id")
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path}: damaged ({error!r})") from error
    stops = stop_ids(prompt_format, tokenizer)
    stops += [end for end in (ends if isinstance(ends, list) else [ends]) if end is not None and end not in stops]
    kept = {key: value for key, value in given.items() if key not in DROPPED_KEYS and value is not None}
    named = {"bos_token_id": tokenizer.bos_id, "pad_token_id": tokenizer.pad_id}
    return kept | {key: value for key, value in named.items() if value is not None} | {
        "eos_token_id": stops if len(stops) > 1 else stops[0], "do_sample": False}
