"""The files of a merged model beside its weights: config, generation config, tokenizer."""

import shutil
from pathlib import Path
from typing import Any

from mft.errors import ModelError
from mft.files import read_json, write_json
from mft.formats.base import PromptFormat
from mft.merging.origin import FACTS
from mft.tokenization.compatibility import format_for
from mft.tokenization.load import TextTokenizer, load_tokenizer
from mft.tokenization.release import release_generation_config, write_release_tokenizer

GENERATION = "generation_config.json"
DTYPE_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
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
        return release_generation_config(read_json(path) if path.is_file() else {}, tokenizer, prompt_format)
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path}: damaged ({error!r})") from error
