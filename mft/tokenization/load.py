"""A tokenizer read from `tokenizer.json` itself, never through the class that the folder's config names.

The classes of transformers 5 rebuild a Llama tokenizer with another normalizer, and text that starts with spaces then
loses one (transformers issues 46491, 47487, 47602). Here the file is given to the `tokenizers` library as it is.
"""

import hashlib
import json
import re
import sys
from array import array
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from mft.errors import TokenizerError
from mft.tokenization.family import Family, byte_of_character, family_of, is_control, piece_bytes
from mft.tokenization.parity import parity_gate
from mft.tokenization.words import SPACE, WordCache, neighbours, word_cache

CONFIG_FILES = ("tokenizer_config.json", "special_tokens_map.json")
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


class TextTokenizer:
    """Text to ids and back, where text can never become a control token.

    `encode_text` encodes a *section*: the text between two control tokens, as one string. Control tokens are put in by
    the caller, by `control_id`. `backend` is the raw tokenizer with `encode_special_tokens=True`, no truncation, no padding.
    """

    def __init__(self, folder: Path, backend: Tokenizer, family: Family, tokens: dict[str, str | None],
                 control: dict[int, str], sha256: str) -> None:
        self.folder = folder
        self.backend = backend
        self.family = family
        self.sha256 = sha256
        """Hash of the folder's tokenizer.json."""
        self.control = control
        """Control tokens: id -> text."""
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self._control_ids = {text: index for index, text in control.items()}
        self.control_patterns = _control_patterns(backend, control)
        """How a server finds each control token in text: with the spaces around it, for one that takes them in."""
        self.bos_token, self.unk_token = tokens["bos_token"], tokens["unk_token"]
        self.eos_token = tokens["eos_token"] or ""
        self.pad_token = tokens["pad_token"] if tokens["pad_token"] not in (None, self.eos_token) else self.unk_token
        """What fills a batch: the pad token that the folder names unless that is eos, else unk."""
        self.eos_id = self.control_id(self.eos_token)
        self.bos_id, self.unk_id, self.pad_id = (
            None if token is None else self.control_id(token) for token in (self.bos_token, self.unk_token, self.pad_token))

    def encode_text(self, text: str) -> list[int]:
        """Ids of one section, with its dummy prefix where the family has one. `</s>` in the text is plain text."""
        return self.encode_texts([text])[0]

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode_text` of many sections at once."""
        return [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_continuation(self, text: str) -> list[int]:
        """Ids of text that goes on inside a section, after a boundary that no token may cross."""
        return self.encode_continuations([text])[0]

    def encode_continuations(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode_continuation` of many texts at once.

        In a Llama vocabulary no piece reaches over a newline, so text after one is encoded as a continuation; the two ids
        in front (dummy prefix, newline) are taken off. A byte-level vocabulary has no dummy prefix to avoid.
        """
        if self.family == "byte_level":
            return self.encode_texts(texts)
        return [ids[2:] for ids in self.encode_texts(["\n" + text for text in texts])]

    def section_bytes(self, texts: Sequence[str]) -> list[bytes]:
        """`encode_texts` as the bytes of whole numbers of `id_type`, by the word cache where there is one."""
        if self.words is not None and not any("▁" in text for text in texts):
            return self.words.sections(texts)
        return self._as_bytes(self.encode_texts(texts))

    def continuation_bytes(self, texts: Sequence[str]) -> list[bytes]:
        """`encode_continuations` in the same form."""
        if self.words is not None and not any("▁" in text for text in texts):
            return self.words.continuations(texts)
        return self.whole_continuations(texts)

    def whole_continuations(self, texts: Sequence[str]) -> list[bytes]:
        """The same without the word cache: every text through the tokenizer."""
        return self._as_bytes(self.encode_continuations(texts))

    @cached_property
    def id_type(self) -> np.dtype[Any]:
        """What an id is stored in: uint16 for up to 65,536 pieces, else uint32; little-endian."""
        return np.dtype("<u2" if max(self.backend.get_vocab().values()) < 1 << 16 else "<u4")

    @cached_property
    def words(self) -> WordCache | None:
        """The word cache, where this vocabulary has the property; set it to None to encode every text whole."""
        return word_cache(self)

    def never_joins(self, left: str, right: str) -> bool:
        """True where, as the vocabulary proves, the ids of `left + right` are those of `left` and of `right` as its continuation."""
        if self._neighbours is None or not left or not right:
            return False
        return (left[-1] + right[0]).replace(" ", SPACE) not in self._neighbours

    @cached_property
    def _neighbours(self) -> frozenset[str] | None:
        return neighbours(self)

    def _as_bytes(self, ids: Sequence[Sequence[int]]) -> list[bytes]:
        kind = "H" if self.id_type.itemsize == 2 else "I"
        if sys.byteorder == "little" and array(kind).itemsize == self.id_type.itemsize:
            return [array(kind, one).tobytes() for one in ids]   # a third faster than numpy
        return [np.array(one, dtype=self.id_type).tobytes() for one in ids]

    def decode(self, ids: Sequence[int], skip_control: bool = False) -> str:
        """The text of a row from its start, section by section; control tokens as their text, or left out."""
        return self._text(ids, section_start=True, skip_control=skip_control)

    def decode_continuation(self, prompt_ids: Sequence[int], completion_ids: Sequence[int], skip_control: bool = False) -> str:
        """The text of `completion_ids` as it stands after `prompt_ids`.

        Alone, a completion loses its first space (it is taken for the dummy prefix), and with it Python's indentation.
        """
        start = not len(prompt_ids) or prompt_ids[-1] in self.control
        return self._text(completion_ids, section_start=start, skip_control=skip_control)

    def byte_edges(self, ids: Sequence[int], *, section_start: bool) -> list[int]:
        """Where each of these text tokens begins in the UTF-8 of their text, and where the last one ends; len(ids) + 1 numbers.

        The dummy prefix of a Llama section is no text: with `section_start` its byte counts for nothing.
        """
        edges = [0]
        for number, index in enumerate(ids):
            piece = self._bytes[index]
            if number == 0 and section_start and self.family == "llama":
                piece = piece.removeprefix(b" ")
            edges.append(edges[-1] + len(piece))
        return edges

    def control_bytes(self, token: str) -> bytes:
        """The id of a control token as it is stored.

        Raises:
            TokenizerError: as `control_id`.
        """
        return self.control_id(token).to_bytes(self.id_type.itemsize, "little")

    def control_id(self, token: str) -> int:
        """The id of a control token.

        Raises:
            TokenizerError: this vocabulary has no such control token.
        """
        if token in self._control_ids:
            return self._control_ids[token]
        known = ", ".join(list(self.control.values())[:8])
        raise TokenizerError(f"{self.folder}: {token!r} is not a control token of this tokenizer; it has {known or 'none'}")

    @cached_property
    def _bytes(self) -> list[bytes]:
        """The bytes of each id: a space for `▁`, one byte for `<0x0A>`, the text of an added token."""
        added = {index: token.content for index, token in self.backend.get_added_tokens_decoder().items()}
        table, size = byte_of_character(), max(self.backend.get_vocab().values()) + 1
        pieces = ((index, self.backend.id_to_token(index)) for index in range(size))
        return [added[index].encode() if index in added else piece_bytes(piece, self.family, table) for index, piece in pieces]

    def _text(self, ids: Sequence[int], *, section_start: bool, skip_control: bool) -> str:
        # Own bytes, not backend.decode: that one takes the dummy prefix off the first section alone, and turns a whole run
        # of byte pieces (a newline too) into replacement characters when one character at its end is incomplete.
        parts: list[bytes] = []
        for index in ids:
            if index in self.control:
                if not skip_control:
                    parts.append(self.control[index].encode())
                section_start = True
                continue
            piece = self._bytes[index] if index < len(self._bytes) else "\ufffd".encode()
            if section_start and self.family == "llama":
                piece = piece.removeprefix(b" ")
            parts.append(piece)
            section_start = False
        return b"".join(parts).decode("utf-8", errors="replace")


def load_tokenizer(path: str | Path) -> TextTokenizer:
    """Read a tokenizer folder and put it through the parity gate.

    Raises:
        TokenizerError: there is no usable tokenizer.json, its family is not known, or a check of the gate failed.
    """
    tokenizer = read_tokenizer(Path(path))
    failed = [f"{check.name}: {check.detail}" for check in parity_gate(tokenizer) if not check.ok]
    if failed:
        raise TokenizerError(f"{path}: this tokenizer gives ids that cannot be trusted; nothing is trained on it\n  "
                             + "\n  ".join(failed))
    return tokenizer


def read_tokenizer(folder: Path) -> TextTokenizer:
    """Read a tokenizer folder without the parity gate (for `mft doctor`, which shows what fails)."""
    file = _tokenizer_file(folder)
    content = file.read_bytes()
    try:
        spec: dict[str, Any] = json.loads(content)
    except ValueError as error:
        raise TokenizerError(f"{file}: is not JSON: {error}") from error
    if not isinstance(spec, dict) or not isinstance(spec.get("model"), dict):
        raise TokenizerError(f"{file}: is not a file of the tokenizers library: it has no 'model'")
    family = family_of(spec, file)
    tokens = _named_tokens(folder)
    control = {}
    for entry in spec.get("added_tokens", []):
        if is_control(entry, family, tokens.values()):
            control[entry["id"]] = entry["content"]
            entry["special"] = True   # encode_special_tokens spares only what is marked special (DeepSeek's <|EOT|> is not)
    try:
        backend = Tokenizer.from_str(json.dumps(spec))
    except Exception as error:   # the library raises nothing narrower for a file that it cannot read
        raise TokenizerError(f"{file}: the tokenizers library cannot read it: {error}") from error
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    return TextTokenizer(folder, backend, family, tokens, control, hashlib.sha256(content).hexdigest())


def _control_patterns(backend: Tokenizer, control: dict[int, str]) -> dict[str, str]:
    added = backend.get_added_tokens_decoder()
    return {text: (r"\s*" if added[index].lstrip else "") + re.escape(text) + (r"\s*" if added[index].rstrip else "")
            for index, text in control.items()}


def _tokenizer_file(folder: Path) -> Path:
    file = folder / "tokenizer.json"
    if file.is_file():
        return file
    if not folder.is_dir():
        raise TokenizerError(f"{folder}: is not a folder; give the folder that holds tokenizer.json")
    if (folder / "tokenizer.json.gz").is_file():
        raise TokenizerError(f"{folder}: holds tokenizer.json.gz; unpack it first (gunzip)")
    if (folder / "tokenizer.model").is_file():
        raise TokenizerError(f"{folder}: has tokenizer.model but no tokenizer.json; ids from a bare tokenizer.model are not to be "
                             "trusted. Take tokenizer.json from the model's repository, or convert once with transformers 4.57: "
                             "CodeLlamaTokenizerFast(vocab_file='tokenizer.model').save_pretrained(folder)")
    raise TokenizerError(f"{folder}: has no tokenizer.json")


def _named_tokens(folder: Path) -> dict[str, str | None]:
    """bos, eos, unk and pad as the folder's config files name them; the first file that names one counts."""
    tokens: dict[str, str | None] = dict.fromkeys(NAMED_TOKENS)
    for name in CONFIG_FILES:
        file = folder / name
        if not file.is_file():
            continue
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise TokenizerError(f"{file}: is not JSON: {error}") from error
        for key in NAMED_TOKENS:
            value = values.get(key)
            tokens[key] = tokens[key] or (value.get("content") if isinstance(value, dict) else value)
    if tokens["eos_token"] is None:
        raise TokenizerError(f"{folder}: no eos_token in {' or '.join(CONFIG_FILES)}; name the token that ends an answer, "
                             'for example {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} for a Llama vocabulary')
    return tokens
