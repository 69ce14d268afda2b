"""The parity gate: what a tokenizer must show before anything is trained on its ids."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tokenizers import Tokenizer

from mft.errors import TokenizerError
from mft.hashes import sha256_text
from mft.tokenization.family import BYTE_PIECE

if TYPE_CHECKING:
    from mft.tokenization.load import TextTokenizer

GOLDEN_FILE = "golden_ids.json"

HARD_TEXTS: Final = (
    "", " ", "a", "    return 1\n", " leading", "  two", "trailing  ", "\ttab\t\tx\n\ty", "\n", "\n\n  x", "a\r\nb\rc",
    "if x:\n        y = 1\n\n\n",
    "</s>", "<s>a</s> b <unk>", "<0x0A>", "你好，世界", " 中文 mixed 日本語 한국어", "naïve – “quoted”", "😀👩‍👩‍👧 e\u0301", "\x00\x07\x7f",
    "'\"`\\{}[]()<>|&^%$#@!~", "0123456789 3.14e-10", "\u00a0\u202f\u3000 wide spaces", "\ufffd",
)
"""Texts that lose something with a wrong normalizer, splitter, decoder or control-token setting."""

LLAMA_32000: Final = "0f97b4337921e6e7e9b4620fc73338ee570aecd3c16038bc23870a887e995045"
GOLDEN: Final[dict[str, tuple[tuple[str, tuple[int, ...]], ...]]] = {LLAMA_32000: (
    ("    return 1\n", (268, 736, 29871, 29896, 13)),
    ("\n    return", (29871, 13, 1678, 736)),
    (" leading", (29871, 8236)),
    ("def f(x):\n\treturn x\n", (822, 285, 29898, 29916, 1125, 13, 12, 2457, 921, 13)),
    ("</s>", (1533, 29879, 29958)),
    ("你好，世界😀", (29871, 30919, 31076, 30214, 30793, 30967, 243, 162, 155, 131)),
    ("<human>: \n2+2?\n<bot>: \n", (529, 26029, 23917, 29871, 13, 29906, 29974, 29906, 29973, 13, 29966, 7451, 23917, 29871, 13)),
)}
"""Hash of a vocabulary (`vocabulary_hash`) -> texts and their ids from SentencePiece: the 32,000 pieces of Llama 2 and CodeLlama."""


class Check(NamedTuple):
    """One check of the gate; `detail` says what was found."""

    name: str
    ok: bool
    detail: str


def parity_gate(tokenizer: "TextTokenizer") -> list[Check]:
    """Every check that applies to this tokenizer; the Llama rule only for its family."""
    checks = [_golden(tokenizer), _round_trip(tokenizer), _control_is_text(tokenizer), _equals_raw(tokenizer)]
    if tokenizer.family == "llama":
        checks += [_byte_pieces(tokenizer), _newline_is_a_boundary(tokenizer)]
    return checks


def vocabulary_hash(tokenizer: "TextTokenizer") -> str:
    """Hash of the model's pieces in the order of their ids, without added tokens."""
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=False)
    return sha256_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))


def _golden(tokenizer: "TextTokenizer") -> Check:
    """Ids known beforehand: from the folder's own file, and from here for a vocabulary that is known."""
    pairs = [*GOLDEN.get(vocabulary_hash(tokenizer), ()), *_golden_file(tokenizer.folder / GOLDEN_FILE)]
    wrong = [f"{text!r} gives {found}, not {list(ids)}" for text, ids in pairs if (found := tokenizer.encode_text(text)) != list(ids)]
    return _check("golden ids", wrong, f"{len(pairs)} texts" if pairs else "none known for this vocabulary")


def _golden_file(file: Path) -> list[tuple[str, Sequence[int]]]:
    if not file.is_file():
        return []
    try:
        return [(row["text"], row["ids"]) for row in json.loads(file.read_text(encoding="utf-8"))]
    except (ValueError, KeyError, TypeError) as error:
        raise TokenizerError(f'{file}: expected a JSON list of {{"text": ..., "ids": [...]}}: {error!r}') from error


def _round_trip(tokenizer: "TextTokenizer") -> Check:
    """A text comes back from its ids, as a section and as a continuation."""
    wrong = [repr(text) for text in HARD_TEXTS if tokenizer.decode(tokenizer.encode_text(text)) != text]
    prompt = tokenizer.encode_text("x:\n")
    wrong += [f"{text!r} as a continuation" for text in HARD_TEXTS
              if tokenizer.decode_continuation(prompt, tokenizer.encode_continuation(text)) != text]
    return _check("round trip", wrong, f"{len(HARD_TEXTS)} texts")


def _control_is_text(tokenizer: "TextTokenizer") -> Check:
    """The text of a control token is encoded as ordinary pieces."""
    wrong = [text for text in tokenizer.control.values() if set(tokenizer.encode_text(f"a{text} b")) & tokenizer.control.keys()]
    return _check("control tokens in text", wrong, f"{len(tokenizer.control)} tokens stay text")


def _equals_raw(tokenizer: "TextTokenizer") -> Check:
    """The `tokenizers` library with its own settings gives the same ids: what a server will do with the prompt string."""
    raw = Tokenizer.from_file(str(tokenizer.folder / "tokenizer.json"))
    raw.no_truncation()
    texts = [text for text in HARD_TEXTS if not any(control in text for control in tokenizer.control.values())]
    wrong = [repr(text) for text in texts if raw.encode(text, add_special_tokens=False).ids != tokenizer.encode_text(text)]
    return _check("same ids as the raw file", wrong, f"{len(texts)} texts")


def _byte_pieces(tokenizer: "TextTokenizer") -> Check:
    """A Llama vocabulary has all 256 byte pieces, and no other piece contains a newline."""
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    missing = 256 - sum(BYTE_PIECE.fullmatch(piece) is not None for piece in vocabulary)
    wrong = [f"{missing} byte pieces are missing"] if missing else []
    wrong += [f"piece {index} is {piece!r}" for piece, index in vocabulary.items() if "\n" in piece]
    return _check("newline only as a byte piece", wrong, f"{len(vocabulary)} pieces")


def _newline_is_a_boundary(tokenizer: "TextTokenizer") -> Check:
    """`encode_continuation` may cut two ids off the front: they are the dummy prefix and the newline, whatever follows."""
    expected = [tokenizer.backend.token_to_id("▁"), tokenizer.backend.token_to_id("<0x0A>")]
    wrong = [repr(text) for text in HARD_TEXTS if tokenizer.encode_text("\n" + text)[:2] != expected]
    return _check("newline is a boundary", wrong, f"{len(HARD_TEXTS)} texts")


def _check(name: str, wrong: Iterable[str], passed: str) -> Check:
    faults = list(wrong)
    return Check(name, not faults, "; ".join(faults[:5]) if faults else passed)
