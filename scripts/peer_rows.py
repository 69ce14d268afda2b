"""The ids and labels that TRL and MFTCoder make of conversations. TRL is the library itself; MFTCoder is written here from a
description of its two encodings, with the raw tokenizer and nothing of mft's formats."""

import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import datasets
import torch
import transformers
from datasets import Dataset
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from mft.conversation import Conversation
from mft.files import read_json, write_json
from mft.formats.base import PromptFormat
from mft.formats.layout import LayoutFormat
from mft.formats.template import literal
from mft.tokenization.load import TextTokenizer
from mft.tokenization.release import write_release_tokenizer

IGNORED: Final = -100
Form = Literal["prompt_completion", "assistant_only", "messages"]
"""How rows are given to TRL: the last answer as completion; `messages` with `assistant_only_loss`; `messages` alone."""


@dataclass(frozen=True, slots=True)
class IdRow:
    """One row as it is trained: `labels[i]` is `input_ids[i]` where trained, else -100."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]


def hub_tokenizer(folder: Path, tokenizer_class: str | None, template: str, scratch: Path) -> PreTrainedTokenizerBase:
    """`AutoTokenizer` on a copy of a folder with this `tokenizer_class` (None: its own) and this chat template in its config."""
    copy = scratch / f"hub-{tokenizer_class}"
    copy.mkdir()
    shutil.copyfile(folder / "tokenizer.json", copy / "tokenizer.json")
    config = read_json(folder / "tokenizer_config.json")
    write_json(copy / "tokenizer_config.json", {**config, **({"tokenizer_class": tokenizer_class} if tokenizer_class else {}),
                                                "chat_template": template})
    return AutoTokenizer.from_pretrained(copy)


def released_tokenizer(tokenizer: TextTokenizer, prompt_format: PromptFormat, scratch: Path) -> PreTrainedTokenizerBase:
    """`AutoTokenizer` on the folder that mft writes beside a released model."""
    folder = scratch / "released"
    folder.mkdir()
    write_release_tokenizer(tokenizer, prompt_format, folder)
    return AutoTokenizer.from_pretrained(folder)


def generation_template(prompt_format: PromptFormat) -> str | None:
    """The exported template with `{% generation %}` around each answer and its end mark; None for a format without a layout.

    TRL asks for these marks and cannot put them into a template that it does not know. This is what a careful user would write:
    the text before the answer and the text after its end mark stay outside.
    """
    if not isinstance(prompt_format, LayoutFormat):
        return None
    layout = prompt_format.layout
    fill = {"{bos}": prompt_format.bos, "{eos}": prompt_format.eos}
    before, lead, close, then = (_filled(text, fill) for text in (layout.assistant, layout.lead, layout.tail + layout.end, layout.then))
    content = "(message['content'] | trim)" if layout.strip else "(message['content'])"
    plain = f"{{{{- {literal(before)} + {literal(lead)} + {content} + {literal(close + then)} -}}}}"
    marked = (f"{{{{- {literal(before)} -}}}}{{% generation %}}{{{{- {literal(lead)} + {content} + {literal(close)} -}}}}"
              f"{{% endgeneration %}}{{{{- {literal(then)} -}}}}")
    template = prompt_format.chat_template()
    if template.count(plain) != 1:
        raise ValueError(f"the template of '{prompt_format.name}' writes its answers otherwise than expected: {plain}")
    return template.replace(plain, marked)


def _filled(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace(key, value)
    return text


def trl_rows(conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase, form: Form,
             max_length: int | None) -> list[IdRow | None]:
    """What `SFTTrainer` of TRL makes of each conversation; None where it dropped the row.

    The trainer is built as a user builds it, around a random Llama of one layer, 8 wide; its `train_dataset` is read.

    Raises:
        ValueError: TRL refuses the template for this form. Whatever the chat template raises for a row that it refuses.
    """
    records = [{"row": index, **_record(conversation, form)} for index, conversation in enumerate(conversations)]
    with TemporaryDirectory() as folder, quiet():
        config = SFTConfig(output_dir=folder, report_to="none", use_cpu=True, bf16=False, max_length=max_length,
                           assistant_only_loss=form == "assistant_only")
        trainer = SFTTrainer(model=tiny_llama(len(tokenizer)), args=config, train_dataset=Dataset.from_list(records),
                             processing_class=tokenizer)
        trained = trainer.train_dataset.select_columns(["row", "input_ids", "labels"])
        made = {row["row"]: IdRow(tuple(row["input_ids"]), tuple(row["labels"])) for row in trained}
    return [made.get(index) for index in range(len(records))]


def _record(conversation: Conversation, form: Form) -> dict[str, Any]:
    turns = [{"role": message.role, "content": message.content, "input_start": message.input_start} for message in conversation.messages]
    return {"prompt": turns[:-1], "completion": turns[-1:]} if form == "prompt_completion" else {"messages": turns}


def tiny_llama(vocabulary: int) -> LlamaForCausalLM:
    """A random Llama of one layer, 8 wide."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                        num_attention_heads=1, num_key_value_heads=1, max_position_embeddings=64))


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no warnings of the libraries; their errors stay."""
    verbosity, bars = transformers.logging.get_verbosity(), datasets.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        transformers.logging.set_verbosity(verbosity)
        if bars:
            datasets.enable_progress_bars()


REWRITTEN_2023: Final = str.maketrans("\u202f\u00a0，。！？：【】（）％＃＠＆１２３４５６７８９０", "  ,.!?:[]()%#@&1234567890")
REWRITTEN_HEAD: Final = str.maketrans("\u202f\u00a0", "  ")
ROLES: Final = {"system": "system", "user": "human", "assistant": "bot"}


def mftcoder_2023_row(conversation: Conversation, raw: Tokenizer, eos_id: int) -> IdRow:
    """MFTCoder as of 2023-09-27: each tag, each content and each answer encoded alone, eos after an answer; text is rewritten first.

    `raw` parses control tokens, as its tokenizer did. Trained: each answer and its eos.
    """
    row = _Growing(raw)
    for message in conversation.messages:
        row.add(f"<|role_start|>{ROLES[message.role]}<|role_end|>")
        row.add(message.content.translate(REWRITTEN_2023), trained=message.role == "assistant")
        if message.role == "assistant":
            row.add_id(eos_id)
    return row.done()


def mftcoder_head_row(conversation: Conversation, raw: Tokenizer, eos_id: int) -> IdRow:
    """MFTCoder at its last commit: headers and contents up to an answer are one string, the answer and a newline another, then eos.

    A newline ends every content; the one after eos is a string of its own, untrained. Trained: each answer, its newline and eos.
    """
    row, prompt = _Growing(raw), ""
    for message in conversation.messages:
        content = message.content.translate(REWRITTEN_HEAD) + "\n"
        prompt += f"<s>{ROLES[message.role]}\n"
        if message.role != "assistant":
            prompt += content
            continue
        row.add(prompt)
        row.add(content, trained=True)
        row.add_id(eos_id)
        row.add("\n")
        prompt = ""
    return row.done()


class _Growing:
    """A row to which strings are added, each encoded alone."""

    def __init__(self, raw: Tokenizer) -> None:
        self._raw = raw
        self._ids: list[int] = []
        self._labels: list[int] = []

    def add(self, text: str, *, trained: bool = False) -> None:
        ids = self._raw.encode(text, add_special_tokens=False).ids
        self._ids += ids
        self._labels += ids if trained else [IGNORED] * len(ids)

    def add_id(self, index: int) -> None:
        self._ids.append(index)
        self._labels.append(index)

    def done(self) -> IdRow:
        return IdRow(tuple(self._ids), tuple(self._labels))
