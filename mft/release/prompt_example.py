"""A model's prompt format shown on one conversation: the bytes, how they are tokenized, where an answer ends, and how to ask for one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mft.conversation import Message
from mft.formats.base import PromptFormat, joined
from mft.release.markdown import fenced, words
from mft.tokenization.compatibility import format_for, stop_ids
from mft.tokenization.encode import encode_prompt
from mft.tokenization.load import TextTokenizer, load_tokenizer

SYSTEM = Message("system", "Be brief.")
TURNS = (Message("user", "2+2?"), Message("assistant", "4"), Message("user", "3+3?"))

TRANSFORMERS = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({name!r})
model = AutoModelForCausalLM.from_pretrained({name!r}, dtype={dtype!r}, device_map="auto")
messages = [{{"role": "user", "content": "Write a function that reverses a string."}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt").to(model.device)
output = model.generate(**inputs, max_new_tokens=512)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""

COMMANDS = """\
mft chat --model {name}
mft serve --model {name}      # then any OpenAI client, at http://127.0.0.1:8000/v1"""


def prompt_section(folder: Path, name: str | dict[str, Any] | None) -> str:
    """The section `Prompt format` of a card, made by the format and tokenizer themselves.

    Raises:
        TokenizerError: the folder's tokenizer cannot be trusted, or lacks a token of the format.
    """
    if name is None:
        return "The prompt format is not recorded: the files that made this model name none."
    tokenizer = load_tokenizer(folder)
    prompt_format = format_for(name, tokenizer)
    if prompt_format.shape != "chat":
        return f"`{prompt_format.name}`: the model continues text; there are no turns and no chat template."
    messages = _renderable(prompt_format)
    text = joined(prompt_format.render_prompt(messages))
    ids = encode_prompt(messages, prompt_format, tokenizer)
    return "\n\n".join([
        f"`{prompt_format.name}`. " + _about(messages),
        fenced(text, "text"), "As a Python string (spaces and newlines count):", fenced(repr(text), "python"),
        "\n".join(f"- {fact}" for fact in _facts(prompt_format, tokenizer, ids))])


def usage_section(name: str, *, is_adapter: bool, dtype: str, quantized: bool) -> str:
    """How to use the folder, with transformers and with mft."""
    loading = TRANSFORMERS.format(name=name, dtype=dtype)
    need = "needs `peft`; the base is loaded as well. " if is_adapter else "needs `gptqmodel` or another loader of its method. " \
        if quantized else ""
    return "\n\n".join([f"{need.capitalize()}With plain transformers:", fenced(loading, "python"), "With mft:",
                        fenced(COMMANDS.format(name=name), "sh")])


def _renderable(prompt_format: PromptFormat) -> Sequence[Message]:
    """The example, without its system message where the format has no place for one."""
    messages = (SYSTEM, *TURNS)
    return messages if prompt_format.fault(messages, prompt=True) is None else TURNS


def _about(messages: Sequence[Message]) -> str:
    roles = ", ".join(f"{message.role} `{message.content}`" for message in messages)
    return f"The prompt of {roles}:"


def _facts(prompt_format: PromptFormat, tokenizer: TextTokenizer, ids: Sequence[int]) -> list[str]:
    bos = [position for position, index in enumerate(ids) if tokenizer.bos_id is not None and index == tokenizer.bos_id]
    stops = ", ".join(f"`{token}` ({index})" for token, index in
                      zip(prompt_format.stop_tokens, stop_ids(prompt_format, tokenizer), strict=True))
    return [
        f"{len(ids)} tokens; BOS: " + ("none" if not bos else f"`{tokenizer.bos_token}` ({tokenizer.bos_id}) at {words(bos)}"),
        f"an answer ends at {stops}; `generation_config.json` names them",
        f"stop strings beside them, for an answer that runs on: {words([f'`{text}`' for text in prompt_format.stop_strings])}",
        ("the chat template writes BOS itself" if bos else "nothing is put before the prompt")
        + ": whoever renders the template to text and tokenizes that passes `add_special_tokens=False`"]


