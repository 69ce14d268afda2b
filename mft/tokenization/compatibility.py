"""Which prompt format goes with which tokenizer, and why another is refused."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mft import formats
from mft.errors import FormatError, TokenizerError
from mft.formats.base import PromptFormat

if TYPE_CHECKING:
    from mft.tokenization.load import TextTokenizer


class Fit(NamedTuple):
    """A format beside a tokenizer: `refused` says why it does not go with it, or is None."""

    name: str
    bos: str
    end: str
    stop_tokens: tuple[str, ...]
    stop_strings: tuple[str, ...]
    refused: str | None


def format_for(name: str | Mapping[str, Any], tokenizer: "TextTokenizer") -> PromptFormat:
    """The prompt format of this name (or a user's YAML, or what it says) with the control tokens of this tokenizer.

    Raises:
        FormatError: no such format, or it cannot be used with this tokenizer's own chat template (`jinja`).
        TokenizerError: the tokenizer lacks a control token of the format.
    """
    template = own_template(tokenizer) if name == "jinja" else ""
    prompt_format: PromptFormat = formats.get(name, bos=tokenizer.bos_token or "", eos=tokenizer.eos_token,
                                              control=tokenizer.control_patterns, template=template)
    if prompt_format.uses_bos and not tokenizer.bos_token:
        raise TokenizerError(f"{tokenizer.folder}: format '{prompt_format.name}' begins with a BOS, and this tokenizer names no bos_token")
    missing = [token for token in dict.fromkeys(prompt_format.required_tokens) if token not in tokenizer.control_patterns]
    if missing:
        raise TokenizerError(
            f"{tokenizer.folder}: format '{prompt_format.name}' needs {', '.join(missing)} as control tokens of the vocabulary, one id "
            "each; this tokenizer has none of that name, and as ordinary text a message could write them too. "
            f"A project adds them with model.add_tokens. Formats that go with it: {', '.join(_fitting(tokenizer)) or 'none'}")
    return prompt_format


def fits(tokenizer: "TextTokenizer") -> list[Fit]:
    """Every format beside this tokenizer, in the order of `formats.names`."""
    found = []
    for name in formats.names():
        try:
            prompt_format = format_for(name, tokenizer)
        except (FormatError, TokenizerError) as error:
            found.append(Fit(name, "", "", (), (), _reason(name, tokenizer, str(error))))
        else:
            found.append(Fit(name, prompt_format.bos if prompt_format.uses_bos else "", prompt_format.end_token, prompt_format.stop_tokens,
                             prompt_format.stop_strings, None))
    return found


def stop_ids(prompt_format: PromptFormat, tokenizer: "TextTokenizer") -> list[int]:
    """The ids at which an answer in this format ends."""
    return [tokenizer.control_id(token) for token in prompt_format.stop_tokens]


def own_template(tokenizer: "TextTokenizer") -> str:
    """The chat template of the tokenizer's folder: `chat_template.jinja`, else the config's (of several, the one named `default`)."""
    file, config = tokenizer.folder / "chat_template.jinja", tokenizer.folder / "tokenizer_config.json"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    return template or ""


def _fitting(tokenizer: "TextTokenizer") -> list[str]:
    """Names of the formats whose control tokens this tokenizer has; `jinja` is left out, whose template may be anything."""
    names = [name for name in formats.names() if name != "jinja"]
    return [name for name in names if _missing(name, tokenizer) == []]


def _missing(name: str, tokenizer: "TextTokenizer") -> list[str]:
    made = formats.get(name, bos=tokenizer.bos_token or "", eos=tokenizer.eos_token, control=tokenizer.control_patterns)
    wanted = made.required_tokens if tokenizer.bos_token or not made.uses_bos else ("BOS", *made.required_tokens)
    return [token for token in dict.fromkeys(wanted) if token and token not in tokenizer.control_patterns]


def _reason(name: str, tokenizer: "TextTokenizer", error: str) -> str:
    """The refusal in a few words."""
    return error.removeprefix("format 'jinja': ") if name == "jinja" else f"no {', '.join(_missing(name, tokenizer))} in the vocabulary"
