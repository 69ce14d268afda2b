"""One answer to a conversation, from a model folder or an adapter folder, in the format it was trained with."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from mft import formats
from mft.conversation import Message
from mft.errors import FormatError, ModelError
from mft.files import read_json
from mft.formats.base import PromptFormat
from mft.generation.completion import Completion
from mft.generation.hf import generate
from mft.modeling.adapters import FACTS, is_adapter, read_adapter_facts
from mft.modeling.added_tokens import base_of_adapter
from mft.modeling.base import resolve_base
from mft.modeling.load import load_model
from mft.tokenization.compatibility import format_for, stop_ids
from mft.tokenization.encode import encode_prompt
from mft.tokenization.load import TextTokenizer, load_tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChatModel:
    """A model with its tokenizer and prompt format."""

    model: PreTrainedModel | PeftModel
    tokenizer: TextTokenizer
    prompt_format: PromptFormat

    def answer(self, messages: Sequence[Message], *, max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0,
               seed: int = 0, watch: Callable[[list[list[int]]], None] | None = None) -> Completion:
        """The assistant's next turn after messages that end with the user's; `watch` as in `generate`.

        Raises:
            FormatError: the turns do not follow each other as the format needs, or a message contains a role tag.
            ModelError: prompt and answer would be longer than the model was made for.
        """
        prompt = encode_prompt(messages, self.prompt_format, self.tokenizer)
        return generate(self.model, self.tokenizer, [prompt], max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p,
                        seed=seed, stop_ids=stop_ids(self.prompt_format, self.tokenizer),
                        stop_strings=self.prompt_format.stop_strings, watch=watch)[0]


def load_chat_model(path: Path, format_name: str | None = None) -> ChatModel:
    """Load what `path` holds: an adapter folder (on its base, as while training) or a model folder.

    Raises:
        As `load_prompts`. ModelError: the weights cannot be loaded.
    """
    tokenizer, prompt_format = load_prompts(path, format_name)   # an unknown name is reported before gigabytes are read
    return ChatModel(load_model(path), tokenizer, prompt_format)


def load_prompts(path: Path, format_name: str | None = None) -> tuple[TextTokenizer, PromptFormat]:
    """The tokenizer and the prompt format of a model folder or an adapter folder, without its weights.

    The format is the one that the folder's `mft.json` names, unless `format_name` is given.

    Raises:
        FormatError: no such format, or none is known for this folder and none is given.
        ModelError: `path` is neither a model folder nor an adapter folder.
        TokenizerError: the folder's tokenizer failed the parity gate.
    """
    if not path.is_dir():
        raise ModelError(f"{path}: no such folder; give a model folder or an adapter folder")
    name = _format_name(path, format_name)
    tokenizer = load_tokenizer(_tokenizer_folder(path))
    return tokenizer, format_for(name, tokenizer)


def answer(model_path: Path, messages: Sequence[Message], *, format_name: str | None = None, max_new_tokens: int = 512,
           temperature: float = 0.0, top_p: float = 1.0, seed: int = 0, system: str | None = None) -> Completion:
    """Load a model and give its next turn; `system` is put before the messages.

    Raises:
        As `load_chat_model` and `ChatModel.answer`.
    """
    turns = [*([Message("system", system)] if system is not None else []), *messages]
    chat = load_chat_model(model_path, format_name)
    return chat.answer(turns, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)


def _format_name(path: Path, given: str | None) -> str | dict[str, Any]:
    facts = read_json(path / FACTS) if (path / FACTS).is_file() else {}
    own = facts.get("format") or None
    if given is None and own is None:
        raise FormatError(f"{path}: does not say which prompt format it was trained with ({FACTS} names none); "
                          f"give --format: {', '.join(formats.names())}")
    if given is not None and own is not None and formats.get_reference(given) != own:
        logger.warning("%s was trained with format %s; %s is used as asked", path, own, given)
    return given if given is not None else own or ""


def _tokenizer_folder(path: Path) -> Path:
    if (path / "tokenizer.json").is_file() or not is_adapter(path):
        return path
    return base_of_adapter(resolve_base(read_adapter_facts(path).base, beside=path), path)
