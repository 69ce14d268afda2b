"""The rows of the encoding benchmark, written once in each layout that a contestant reads."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import peer_rows
from id_causes import Setting
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from mft.config.yaml import parse_yaml
from mft.conversation import Conversation, Message
from mft.data.converters.registry import Choice
from mft.data.ledger import Ledger
from mft.data.readers.conversations import read_conversations
from mft.errors import DataError
from mft.formats.base import joined
from mft.tokenization.compatibility import format_for
from mft.tokenization.encode import encode_many
from mft.tokenization.load import load_tokenizer
from mft.tokenization.sections import encoding_fault

TASK: Final = "bench"
MESSAGES, COMPLETIONS, ROUNDS = "messages.jsonl", "completions.jsonl", "chat_rounds.jsonl"
FORMATS: Final = ("codefuse", "mftcoder")
"""The formats that MFTCoder's encoders write: that of 2023 and that of its last commit."""
MFTCODER_ROLES: Final = {"system": "system", "user": "human", "assistant": "bot"}


@dataclass(frozen=True, slots=True)
class Inputs:
    """The same rows for all: in `folder` once as `messages`, once as prompt and completion, once as MFTCoder's `chat_rounds`.

    `texts`: each row as it is rendered. `released`: what `AutoTokenizer` makes of the folder that mft writes beside a model.
    `left_out`: rows of the files that nobody gets, by reason.
    """

    setting: Setting
    conversations: Sequence[Conversation]
    texts: Sequence[str]
    left_out: Counter[str]
    folder: Path
    released: PreTrainedTokenizerBase
    context: int


@dataclass(frozen=True, slots=True)
class Source:
    """A file of conversations with the converter for its rows, a name or a mapping as in a recipe."""

    path: Path
    converter: Choice = "auto"

    @classmethod
    def parse(cls, text: str) -> "Source":
        """`PATH` or `PATH={type: pairs, columns: {prompt: user, answer: assistant}}`."""
        path, _, converter = text.partition("={")
        return cls(Path(path), parse_yaml("{" + converter, "--data").data if converter else "auto")


def make_inputs(sources: Sequence[Source], tokenizer_folder: Path, format_name: str, context: int, folder: Path,
                limit: int | None = None) -> Inputs:
    """Read `sources` and write their rows to `folder` in each layout; `limit`: rows of each file, evenly spread.

    Left out, so that no contestant has to drop or to cut: what mft drops, and rows of more than `context` tokens in any encoding
    (MFTCoder's adds at most a token for each string that it encodes alone).

    Raises:
        MftError: the files, the tokenizer or the format cannot be used.
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    raw = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    raw.no_truncation()
    raw.no_padding()
    setting = Setting(tokenizer, format_for(format_name, tokenizer), raw)
    left_out: Counter[str] = Counter()
    kept: list[Conversation] = []
    for source in sources:
        ledger = Ledger(source.path.name)
        rows = list(read_conversations(source.path, source.converter, ledger, task=TASK))
        left_out += ledger.dropped
        for row in rows if limit is None else [rows[len(rows) * index // min(limit, len(rows))] for index in range(min(limit, len(rows)))]:
            if reason := _reason(row, setting, context):
                left_out[reason] += 1
            else:
                kept.append(row)
    if not kept:
        raise DataError(f"no row is left of {', '.join(str(source.path) for source in sources)}; left out: {dict(left_out)}")
    _write_layouts(kept, folder)
    conversations = list(read_conversations(folder / MESSAGES, "auto", task=TASK))   # as the contestants see them: no marks of the source
    texts = [joined(setting.prompt_format.render(conversation)) for conversation in conversations]
    released = peer_rows.released_tokenizer(tokenizer, setting.prompt_format, folder)
    return Inputs(setting, conversations, texts, left_out, folder, released, context)


def _reason(row: Conversation, setting: Setting, context: int) -> str | None:
    """Why a row is left out, or None."""
    if row.messages[-1].role != "assistant":
        return "no_last_answer"
    if reason := encoding_fault(row.messages, setting.prompt_format, setting.tokenizer):
        return reason
    longest = max(made.tokens for made in encode_many([row], setting.prompt_format, setting.tokenizer)[0])
    return "over_context" if longest + 4 * len(row.messages) > context else None


def _write_layouts(rows: Iterable[Conversation], folder: Path) -> None:
    with (folder / MESSAGES).open("w", encoding="utf-8") as messages, (folder / COMPLETIONS).open("w", encoding="utf-8") as completions, \
            (folder / ROUNDS).open("w", encoding="utf-8") as rounds:
        for number, row in enumerate(rows):
            turns = [_turn(message) for message in row.messages]
            _write_line(messages, {"id": f"{number}", "messages": turns})
            _write_line(completions, {"prompt": turns[:-1], "completion": turns[-1:]})
            _write_line(rounds, {"chat_rounds": [{**turn, "role": MFTCODER_ROLES[turn["role"]]} for turn in turns]})


def _turn(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _write_line(stream: Any, value: dict[str, Any]) -> None:
    stream.write(json.dumps(value, ensure_ascii=False) + "\n")
