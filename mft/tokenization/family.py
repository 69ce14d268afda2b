"""The two kinds of vocabulary that are understood, and what sets each apart in a `tokenizer.json`."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from mft.errors import TokenizerError

Family = Literal["llama", "byte_level"]
"""`llama`: BPE with byte pieces and a dummy prefix `▁`. `byte_level`: BPE over bytes written as characters (GPT-2's way)."""

LLAMA_NORMALIZER: Final = [
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
]
BYTE_PIECE: Final = re.compile(r"<0x([0-9A-F]{2})>")
TAG_SHAPED: Final = re.compile(r"<\S+>")


def family_of(spec: Mapping[str, Any], where: Path) -> Family:
    """Which family a `tokenizer.json` belongs to.

    Raises:
        TokenizerError: neither; the message says what was found.
    """
    model = spec["model"]
    if model.get("type", "BPE") != "BPE":
        raise TokenizerError(f"{where}: the model is {model['type']}; expected BPE")
    if model.get("dropout"):
        raise TokenizerError(f"{where}: BPE dropout is {model['dropout']}: the same text would get other ids each time; set it to null")
    normalizers, splitters = _steps(spec.get("normalizer"), "normalizers"), _steps(spec.get("pre_tokenizer"), "pretokenizers")
    if model.get("byte_fallback"):
        if normalizers == LLAMA_NORMALIZER and not splitters:
            return "llama"
        raise TokenizerError(
            f"{where}: a Llama vocabulary whose normalizer is {_kinds(normalizers)} and whose pre_tokenizer is {_kinds(splitters)}; "
            "expected Prepend '▁' + Replace ' ' by '▁', and none. Some versions of transformers write such a file; it gives other ids "
            "than SentencePiece. Take tokenizer.json from the model's own repository")
    byte_level = [step for step in splitters if step["type"] == "ByteLevel"]
    if byte_level and not byte_level[0].get("add_prefix_space") and not normalizers:
        return "byte_level"
    raise TokenizerError(
        f"{where}: a BPE vocabulary without byte pieces, normalizer {_kinds(normalizers)}, pre_tokenizer {_kinds(splitters)}; expected "
        "byte-level BPE: a ByteLevel pre_tokenizer with add_prefix_space false and no normalizer, or a Llama vocabulary")


def is_control(entry: Mapping[str, Any], family: Family, named: Collection[str | None]) -> bool:
    """Whether an added token is control: text may never become it. Others are pieces of text with an id of their own.

    Not only those marked special: DeepSeek's file leaves `<|EOT|>` and `<|User|>` unmarked.
    """
    content = entry["content"]
    return bool(family == "llama" or entry["special"] or content in named or TAG_SHAPED.fullmatch(content))


def byte_of_character() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for.

    Printable Latin-1 characters are their own byte; the other 68 bytes, in order, are the characters from U+0100 on.
    Source: GPT-2, `bytes_to_unicode`.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


def piece_bytes(piece: str | None, family: Family, table: Mapping[str, int]) -> bytes:
    """The bytes that a piece stands for; an id without a piece stands for the replacement character."""
    if piece is None:
        return "\ufffd".encode()
    if family == "byte_level":
        return bytes(table[character] for character in piece)
    if match := BYTE_PIECE.fullmatch(piece):
        return bytes([int(match[1], 16)])
    return piece.replace("▁", " ").encode()


def _steps(step: Mapping[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer as a flat list of steps."""
    if step is None:
        return []
    return [dict(inner) for inner in step[key]] if step["type"] == "Sequence" else [dict(step)]


def _kinds(steps: list[dict[str, Any]]) -> str:
    return " + ".join(step["type"] for step in steps) or "none"
