"""What a build must know of a row once it is clean: its names and sizes, not its text."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outline:
    """A row without its messages, so that splitting, mixing and shuffling take memory by the row and not by its length.

    `origin` is the place alone (`a.jsonl:3`). `choice` is `mft.data.mixture.draw.text_choice` of the messages, empty where the
    mixture leaves nothing to choose. `shard` and `row` say where the messages lie.
    """

    id: str
    task: str
    origin: str
    split_key: str
    characters: int
    trained_characters: int
    choice: bytes
    shard: int
    row: int
