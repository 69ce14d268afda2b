"""The peers that have a prompt format, each with its rows and the ladder of causes that leads from ours to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import id_causes
import peer_rows
from id_causes import Ladder, Setting, State

from mft.conversation import Conversation

MAX_LENGTH: Final = 1024
"""TRL's default."""
LLAMA_CLASSES: Final = ("LlamaTokenizer", "CodeLlamaTokenizer")
"""What the Llama and the CodeLlama repositories name in tokenizer_config.json."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer as it is run: its rows, and the ladder from ours to them."""

    name: str
    rows: Callable[[Sequence[Conversation]], list[State]]
    ladder: Callable[[Conversation], Ladder]


def peers_of(setting: Setting, folder: Path, scratch: Path) -> list[Peer]:
    """The peers that have this format, each at its settings."""
    template = setting.prompt_format.chat_template()
    classes: tuple[str | None, ...] = LLAMA_CLASSES if setting.tokenizer.family == "llama" else (None,)
    loaded = {name or "own class": peer_rows.hub_tokenizer(folder, name, template, scratch) for name in classes}
    released = peer_rows.released_tokenizer(setting.tokenizer, setting.prompt_format, scratch)
    peers = [_completion_peer(setting, f"trl prompt+completion, {name}", auto) for name, auto in loaded.items()]
    peers += [_completion_peer(setting, "trl prompt+completion, released folder", released)]
    if not setting.prompt_format.row_per_turn:
        peers.append(_messages_peer(setting, "trl messages, released folder", released, assistant_only=False))
    if (marked := peer_rows.generation_template(setting.prompt_format)) is not None:
        peers.append(_messages_peer(setting, "trl assistant_only_loss, generation marks put in", released, assistant_only=True,
                                    template=marked))
    if setting.prompt_format.name in ("codefuse", "codefuse_2023", "mftcoder"):
        peers.append(_mftcoder_peer(setting))
    return peers


def _completion_peer(setting: Setting, name: str, auto: Any) -> Peer:
    return Peer(name, lambda rows: _states(peer_rows.trl_rows(rows, auto, "prompt_completion", MAX_LENGTH)),
                lambda row: id_causes.completion_ladder(setting, row, auto, MAX_LENGTH))


def _messages_peer(setting: Setting, name: str, auto: Any, *, assistant_only: bool, template: str | None = None) -> Peer:
    def rows(conversations: Sequence[Conversation]) -> list[State]:
        own, auto.chat_template = auto.chat_template, template or auto.chat_template
        try:
            return _states(peer_rows.trl_rows(conversations, auto, "assistant_only" if assistant_only else "messages", MAX_LENGTH))
        finally:
            auto.chat_template = own

    return Peer(name, rows, lambda row: id_causes.messages_ladder(setting, row, MAX_LENGTH, assistant_only=assistant_only))


def _mftcoder_peer(setting: Setting) -> Peer:
    head, eos = setting.prompt_format.name == "mftcoder", setting.tokenizer.eos_id
    encode = peer_rows.mftcoder_head_row if head else peer_rows.mftcoder_2023_row
    return Peer("mftcoder, last commit" if head else "mftcoder, 2023", lambda rows: [(encode(row, setting.raw, eos),) for row in rows],
                lambda row: id_causes.mftcoder_ladder(setting, row, head=head))


def _states(rows: Sequence[peer_rows.IdRow | None]) -> list[State]:
    return [() if row is None else (row,) for row in rows]


def refusal(setting: Setting, conversations: Sequence[Conversation], scratch: Path) -> str:
    """What TRL says to `assistant_only_loss` with the template as mft exports it."""
    folder = scratch / "refusal"
    folder.mkdir()
    auto = peer_rows.released_tokenizer(setting.tokenizer, setting.prompt_format, folder)
    try:
        peer_rows.trl_rows(conversations[:1], auto, "assistant_only", MAX_LENGTH)
    except ValueError as error:
        return str(error)
    return "not refused"
