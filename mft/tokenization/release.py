"""The tokenizer files of a released model: right ids through a plain `AutoTokenizer`, and the chat template."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mft.errors import TokenizerError
from mft.files import read_json, write_json, write_text
from mft.formats.base import PromptFormat
from mft.tokenization.compatibility import stop_ids

if TYPE_CHECKING:
    from mft.tokenization.load import TextTokenizer

DROPPED_KEYS = frozenset({
    "temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
    "repetition_penalty", "no_repeat_ngram_size", "num_beams", "num_return_sequences", "length_penalty", "early_stopping",
    "_from_model_config"})
"""What makes an answer other than plain greedy, and the mark of a config that nobody wrote."""


def write_release_tokenizer(tokenizer: "TextTokenizer", prompt_format: PromptFormat, folder: Path) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` into an existing folder.

    - `tokenizer_class` is PreTrainedTokenizerFast: for Llama's and CodeLlama's class names transformers 5 would replace the
      normalizer, and ids of text that starts with spaces would change.
    - BOS comes from tokenizer.json's post-processor, for formats that begin with one. The chat template writes BOS itself, and
      `apply_chat_template` adds none. Who renders the template to text and tokenizes that must pass `add_special_tokens=False`.
    - Control tokens in a message are parsed by `apply_chat_template`, as by every server that takes the prompt as one string.
      `split_special_tokens` cannot be set for the folder: the template's own BOS and eos would become plain text as well.
    - pad is never eos, so that no label mask made elsewhere can lose the end of an answer; padding is on the left, for generation.

    Raises:
        TokenizerError: the format has other control tokens than this tokenizer.
    """
    if prompt_format.eos != tokenizer.eos_token or (prompt_format.uses_bos and prompt_format.bos != tokenizer.bos_token):
        raise TokenizerError(f"{tokenizer.folder}: has bos {tokenizer.bos_token!r} and eos {tokenizer.eos_token!r}, but the format "
                             f"'{prompt_format.name}' was made with {prompt_format.bos!r} and {prompt_format.eos!r}")
    spec = read_json(tokenizer.folder / "tokenizer.json")
    spec |= {"truncation": None, "padding": None, "post_processor": _post_processor(tokenizer) if prompt_format.uses_bos else None}
    template = prompt_format.chat_template()
    # One line, no spaces: an indented vocabulary is several times the size.
    write_text(folder / "tokenizer.json", json.dumps(spec, ensure_ascii=False, separators=(",", ":")))
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{key: token for key in ("bos_token", "eos_token", "unk_token", "pad_token") if (token := getattr(tokenizer, key)) is not None},
        "add_bos_token": prompt_format.uses_bos, "add_eos_token": False,
        "padding_side": "left", "clean_up_tokenization_spaces": False,
        **_context_of(tokenizer),
        "chat_template": template,
    })
    write_text(folder / "chat_template.jinja", template)


def release_generation_config(given: dict[str, Any], tokenizer: "TextTokenizer", prompt_format: PromptFormat) -> dict[str, Any]:
    """What `generation_config.json` says: answers end where the format ends them, and are greedy unless the caller samples.

    `given` is the base's; its further end tokens stay, its sampling does not: a server would apply it to every request that sets none.
    """
    ends = given.get("eos_token_id")
    stops = stop_ids(prompt_format, tokenizer)
    stops += [end for end in (ends if isinstance(ends, list) else [ends]) if end is not None and end not in stops]
    kept = {key: value for key, value in given.items() if key not in DROPPED_KEYS and value is not None}
    named = {"bos_token_id": tokenizer.bos_id, "pad_token_id": tokenizer.pad_id}
    return kept | {key: value for key, value in named.items() if value is not None} | {
        "eos_token_id": stops if len(stops) > 1 else stops[0], "do_sample": False}


def _post_processor(tokenizer: "TextTokenizer") -> dict[str, Any]:
    """BOS, then the text."""
    bos = {"SpecialToken": {"id": tokenizer.bos_token, "type_id": 0}}
    first = {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    known = {"id": tokenizer.bos_token, "ids": [tokenizer.bos_id], "tokens": [tokenizer.bos_token]}
    return {"type": "TemplateProcessing", "single": [bos, first], "pair": [bos, first, second],
            "special_tokens": {tokenizer.bos_token: known}}


def _context_of(tokenizer: "TextTokenizer") -> dict[str, int]:
    """`model_max_length`, where the tokenizer's own config has it."""
    file = tokenizer.folder / "tokenizer_config.json"
    length = read_json(file).get("model_max_length") if file.is_file() else None
    return {} if length is None else {"model_max_length": length}
