"""Whether a folder can be served as it lies there: any server takes ids, template and end tokens from its files alone."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mft import formats
from mft.errors import FormatError, ModelError
from mft.files import read_json
from mft.formats.base import PromptFormat
from mft.modeling.added_tokens import base_of_adapter
from mft.modeling.base import read_model_config, resolve_base
from mft.tokenization.compatibility import format_for, own_template, stop_ids
from mft.tokenization.load import TextTokenizer, load_tokenizer

FACTS, ADAPTER = "mft.json", "adapter_config.json"
REMEDY = "`mft release FOLDER --out DIR` writes a folder that servers read right"


@dataclass(frozen=True, slots=True)
class Servable:
    """A folder that was looked at. `base`: the folder of an adapter's base, else None; `config`: that of the model or the base; `adapter`:
    PEFT's config; `trained_on`: how the base was held while the adapter was trained."""

    folder: Path
    prompt_format: PromptFormat
    base: Path | None
    config: dict[str, Any]
    adapter: dict[str, Any] = field(default_factory=dict)
    trained_on: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> Path:
        """The folder with the model's own weights."""
        return self.base or self.folder


def look_at(folder: Path, format_name: str | None = None) -> Servable:
    """Check a model or adapter folder before a server is started on it.

    Raises:
        ModelError: it is neither, has no weights, or its tokenizer, template or end tokens would make a server send other ids than were
        trained, or not stop. FormatError: no format is known. TokenizerError: the tokenizer is missing or cannot be trusted.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; give a model folder or an adapter folder")
    adapter = read_json(folder / ADAPTER) if (folder / ADAPTER).is_file() else {}
    base = _base_of(folder, adapter) if adapter else None
    config = read_model_config(base or folder)
    if not any((base or folder).glob("*.safetensors")):
        raise ModelError(f"{base or folder}: has no .safetensors weights")
    tokenizer = load_tokenizer(folder)
    prompt_format = format_for(_format_name(folder, format_name), tokenizer)
    faults = list(_faults(folder, tokenizer, prompt_format))
    if faults:
        raise ModelError("\n".join([*faults, REMEDY]))
    return Servable(folder, prompt_format, base, config, adapter, _facts(folder).get("quantization") or {})


def _facts(folder: Path) -> dict[str, Any]:
    return dict(read_json(folder / FACTS)) if (folder / FACTS).is_file() else {}


def _base_of(folder: Path, adapter: dict[str, Any]) -> Path:
    """The folder of an adapter's base. Not by mft/modeling/adapters.py: what only starts a server need not wait for torch."""
    name = _facts(folder).get("base") or adapter.get("base_model_name_or_path")
    if not name:
        raise ModelError(f"{folder}: neither {FACTS} nor {ADAPTER} names its base")
    return base_of_adapter(resolve_base(name, beside=folder), folder)


def _format_name(folder: Path, given: str | None) -> Any:
    own = _facts(folder).get("format")
    if not (given or own):
        raise FormatError(f"{folder}: does not say which prompt format it was trained with ({FACTS} names none); "
                          f"give --format: {', '.join(formats.names())}")
    return given or own


def _faults(folder: Path, tokenizer: TextTokenizer, prompt_format: PromptFormat) -> list[str]:
    faults = []
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    if config.get("tokenizer_class") != "PreTrainedTokenizerFast":
        faults.append(f"{folder / 'tokenizer_config.json'}: tokenizer_class is {config.get('tokenizer_class')!r}, for which transformers 5 "
                      "changes the ids of text; a released folder has PreTrainedTokenizerFast")
    for place, text in (("chat_template.jinja", own_template(tokenizer)), ("tokenizer_config.json", config.get("chat_template"))):
        if text != prompt_format.chat_template():
            faults.append(f"{folder / place}: {'has no chat template' if not text else 'its chat template is not'} "
                          f"{'' if not text else f'that of the format {prompt_format.name!r}'}".rstrip())
    generation = read_json(folder / "generation_config.json") if (folder / "generation_config.json").is_file() else {}
    ends = generation.get("eos_token_id")
    named = ends if isinstance(ends, list) else [ends]
    if missing := [index for index in stop_ids(prompt_format, tokenizer) if index not in named]:
        faults.append(f"{folder / 'generation_config.json'}: eos_token_id is {ends}; an answer in this format ends at {missing} too, so a "
                      "server would not stop")
    return faults
