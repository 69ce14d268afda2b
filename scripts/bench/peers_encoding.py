"""Those who make masked packed tokens of a file of conversations: mft, a tutorial, TRL, MFTCoder; and the bare tokenizer.

Each `run` starts from a file and ends with rows of `context` tokens chosen and everything on disk in a folder of its own; what it
returns is counted by `tally` after the clock has stopped. TRL and `datasets` are the libraries; the tutorial and MFTCoder are
written here and in scripts/peer_rows.py from their descriptions.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Final

import numpy as np
import peer_rows
import pyarrow.compute as pc
from datasets import Dataset, load_dataset
from peer_rows import IGNORED, IdRow
from peers_inputs import COMPLETIONS, MESSAGES, ROUNDS, TASK, Inputs
from trl import SFTConfig, SFTTrainer, pack_dataset

from mft.data.ledger import Ledger
from mft.data.readers.conversations import read_conversations
from mft.tokenization.load import load_tokenizer
from mft.tokenization.packing import pack
from mft.tokenization.store import EncodedSet, encode_conversations, read_tokens, write_tokens

BATCH: Final = 1024
"""Texts that the bare tokenizer gets at once; more at once are no faster on one core."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What came out: samples, their tokens, how many of them are trained, and the rows that they share (0: not packed)."""

    samples: int
    tokens: int
    trained: int
    rows: int


class Contestant(ABC):
    """One way from a file to packed rows."""

    name: ClassVar[str]

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs

    def prepare(self) -> None:   # noqa: B027 - most need nothing
        """Make what must be fresh for each run, and is not timed."""

    @abstractmethod
    def run(self, folder: Path) -> Any:
        """The work that is timed."""

    @abstractmethod
    def tally(self, made: Any) -> Tally:
        """Counts of what `run` returned."""


class Ours(Contestant):
    """mft without the word cache: every text goes through the tokenizer."""

    name = "mft"
    cached: ClassVar[bool] = False

    def prepare(self) -> None:
        self.tokenizer = load_tokenizer(self.inputs.setting.tokenizer.folder)
        if not self.cached:
            self.tokenizer.words = None

    def run(self, folder: Path) -> tuple[EncodedSet, list[list[int]]]:
        rows = read_conversations(self.inputs.folder / MESSAGES, "auto", Ledger(self.name), task=TASK)
        encoded = encode_conversations(rows, self.inputs.setting.prompt_format, self.tokenizer, self.inputs.context, [TASK])
        write_tokens(folder / "tokens", encoded, {})
        opened = read_tokens(folder / "tokens")
        return opened, pack(opened.samples.lengths.tolist(), self.inputs.context)

    def tally(self, made: tuple[EncodedSet, list[list[int]]]) -> Tally:
        records = made[0].samples.records
        placed = sum(map(len, made[1]))
        return Tally(placed, int(records["tokens"].sum()), int(records["trained"].sum()), len(made[1]))

    @staticmethod
    def rows(encoded: EncodedSet) -> Iterator[tuple[IdRow, ...]]:
        """The rows of each conversation, in order."""
        found: list[IdRow] = []
        numbers = encoded.samples.records["conversation"].tolist()
        for index, sample in enumerate(encoded.samples):
            found.append(IdRow(sample.input_ids, sample.labels))
            if index + 1 == len(numbers) or numbers[index + 1] != numbers[index]:
                yield tuple(found)
                found = []


class OursCached(Ours):
    """mft with the word cache, empty at the start of each run."""

    name = "mft, word cache"
    cached = True


class Tutorial(Contestant):
    """`load_dataset`, a function mapped over single rows that renders prompt and whole and encodes both, `pack_dataset`."""

    name = "datasets.map + apply_chat_template"

    def run(self, folder: Path) -> tuple[Dataset, Dataset]:
        dataset = load_dataset("json", data_files=str(self.inputs.folder / MESSAGES), split="train", cache_dir=str(folder))
        tokenizer = self.inputs.released

        def encode(example: dict[str, Any]) -> dict[str, list[int]]:
            prompt = tokenizer.apply_chat_template(example["messages"][:-1], tokenize=False, add_generation_prompt=True)
            whole = tokenizer.apply_chat_template(example["messages"], tokenize=False)
            before = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
            ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
            return {"input_ids": ids, "labels": [IGNORED] * before + ids[before:]}

        encoded = dataset.map(encode, remove_columns=dataset.column_names)
        return encoded, pack_dataset(encoded, self.inputs.context, "bfd")

    def tally(self, made: tuple[Dataset, Dataset]) -> Tally:
        return _packed_tally(made[1])

    @staticmethod
    def rows(encoded: Dataset) -> Iterator[IdRow]:
        """The rows before packing."""
        return (IdRow(tuple(row["input_ids"]), tuple(row["labels"])) for row in encoded)


class Trl(Contestant):
    """TRL's own preparation, as `SFTTrainer` does it while it is made around a random Llama of one layer, 8 wide."""

    name = "trl SFTTrainer, packing"

    def prepare(self) -> None:
        self.model = peer_rows.tiny_llama(len(self.inputs.released))

    def run(self, folder: Path) -> Dataset:
        dataset = load_dataset("json", data_files=str(self.inputs.folder / COMPLETIONS), split="train", cache_dir=str(folder))
        config = SFTConfig(output_dir=str(folder / "run"), report_to="none", use_cpu=True, bf16=False, max_length=self.inputs.context,
                           packing=True)
        return SFTTrainer(model=self.model, args=config, train_dataset=dataset, processing_class=self.inputs.released).train_dataset

    def tally(self, made: Dataset) -> Tally:
        return _packed_tally(made)

    def rows(self) -> list[IdRow | None]:
        """The rows before packing, of another run without it."""
        return peer_rows.trl_rows(self.inputs.conversations, self.inputs.released, "prompt_completion", self.inputs.context)


class MftCoder(Contestant):
    """MFTCoder's encoder: JSON lines, each part of a row encoded alone by transformers' `encode`, next-fit rows with a loss mask."""

    name = "MFTCoder"

    def prepare(self) -> None:
        released = self.inputs.released
        self.raw = SimpleNamespace(encode=lambda text, add_special_tokens: SimpleNamespace(
            ids=released.encode(text, add_special_tokens=add_special_tokens)))

    def run(self, folder: Path) -> tuple[list[IdRow], int]:
        encode = peer_rows.mftcoder_head_row if self.inputs.setting.prompt_format.name == "mftcoder" else peer_rows.mftcoder_2023_row
        eos = self.inputs.setting.tokenizer.eos_id
        with (self.inputs.folder / ROUNDS).open(encoding="utf-8") as lines:
            rows = [encode(_light_conversation(json.loads(line)["chat_rounds"]), self.raw, eos) for line in lines]
        ids, mask = _next_fit(rows, self.inputs.context, self.inputs.setting.tokenizer.pad_id or 0)
        np.save(folder / "input_ids.npy", ids)
        np.save(folder / "loss_mask.npy", mask)
        return rows, len(ids)

    def tally(self, made: tuple[list[IdRow], int]) -> Tally:
        rows = made[0]
        return Tally(len(rows), sum(len(row.input_ids) for row in rows),
                     sum(len(row.labels) - row.labels.count(IGNORED) for row in rows), made[1])


class MftCoderRaw(MftCoder):
    """The same over the bare tokenizer, without transformers: the fastest that its way of encoding could be."""

    name = "MFTCoder, bare tokenizer"

    def prepare(self) -> None:
        self.raw = self.inputs.setting.raw


class Bare(Contestant):
    """`encode_batch` of the bare tokenizer over the rendered texts, which lie in memory: no file, mask, packing or store."""

    name = "bare encode_batch"

    def run(self, folder: Path) -> list[int]:
        raw, texts, lengths = self.inputs.setting.raw, self.inputs.texts, []
        for start in range(0, len(texts), BATCH):
            lengths += [len(encoding) for encoding in raw.encode_batch(texts[start:start + BATCH], add_special_tokens=False)]
        return lengths

    def tally(self, made: list[int]) -> Tally:
        return Tally(len(made), sum(made), 0, 0)


class BareFast(Bare):
    """`encode_batch_fast` in its place, which keeps no offsets."""

    name = "bare encode_batch_fast"

    def run(self, folder: Path) -> list[int]:
        raw, texts, lengths = self.inputs.setting.raw, self.inputs.texts, []
        for start in range(0, len(texts), BATCH):
            lengths += [len(encoding) for encoding in raw.encode_batch_fast(texts[start:start + BATCH], add_special_tokens=False)]
        return lengths


CONTESTANTS: Final[tuple[type[Contestant], ...]] = (Ours, OursCached, Tutorial, Trl, MftCoder, MftCoderRaw, Bare, BareFast)


def _packed_tally(packed: Dataset) -> Tally:
    """Counts of a table of TRL's: a packed row has the lengths of its samples in `seq_lengths`."""
    samples = tokens = trained = 0
    for chunk in packed.with_format("arrow").iter(batch_size=1000):
        samples += len(pc.list_flatten(chunk["seq_lengths"]))
        tokens += len(pc.list_flatten(chunk["input_ids"]))
        trained += pc.sum(pc.not_equal(pc.list_flatten(chunk["labels"]), IGNORED)).as_py() or 0
    return Tally(samples, tokens, trained, len(packed))


def _light_conversation(rounds: Iterable[dict[str, str]]) -> Any:
    """What scripts/peer_rows.py asks of a conversation, without the checks of mft's own."""
    roles = {"human": "user", "bot": "assistant", "system": "system"}
    return SimpleNamespace(messages=[SimpleNamespace(role=roles[one["role"]], content=one["content"]) for one in rounds])


def _next_fit(rows: Iterable[IdRow], context: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows filled in order and padded, with their loss mask, each [rows, context]; the last, part-filled row is kept here."""
    ids: list[list[int]] = [[]]
    mask: list[list[int]] = [[]]
    for row in rows:
        if len(ids[-1]) + len(row.input_ids) > context:
            ids.append([])
            mask.append([])
        ids[-1] += row.input_ids
        mask[-1] += [int(label != IGNORED) for label in row.labels]
    padded = np.full((len(ids), context), pad, dtype=np.int32)
    trained = np.zeros((len(ids), context), dtype=np.int8)
    for number, (own, marks) in enumerate(zip(ids, mask, strict=True)):
        padded[number, :len(own)] = own
        trained[number, :len(marks)] = marks
    return padded, trained
