"""`held_out_dedup`: held-out rows that a training row nearly repeats, whatever the tasks and files of the two.

A split by file keeps the rows of one function on one side. It says nothing of the function's near copy in another file, which
`near_dedup` cannot take out of several tasks at once: over all of them together it would take the four tasks of one function for
copies of each other. Here rows of one side are never compared, so the tasks of one function stay.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mft.conversation import Conversation
from mft.data.dedup.config import HeldOutDedupStep
from mft.data.dedup.minhash import band_keys, buckets
from mft.data.dedup.shingles import Hashes, Shingler, jaccard
from mft.data.filters.parts import texts_of
from mft.data.split import is_held_out
from mft.data.verdict import KEEP, GroupStep, RowName, Verdict, drop


class HeldOutDedup(GroupStep):
    """`like_training`: a row that is trained says nearly the same."""

    def __init__(self, config: HeldOutDedupStep) -> None:
        self.config = config
        self._shingler = Shingler(config.ngram)
        self._report: dict[str, Any] = {}
        self._gone: list[dict[str, Any]] = []

    def key(self, row: Conversation) -> bytes:
        """One byte, 1 for a held-out row, and 8 bytes for each distinct shingle of all messages laid end to end."""
        held_out = is_held_out(row, self.config.split)
        return bytes([held_out]) + self._shingler(["\n".join(texts_of(row, "all"))]).astype("<u8").tobytes()

    def judge_keys(self, keys: Sequence[bytes], names: Sequence[RowName]) -> Sequence[Verdict]:
        held_out = [key[0] == 1 for key in keys]
        sets = [np.frombuffer(key, "<u8", offset=1) for key in keys]
        like = self._most_alike(sets, held_out)
        self._gone = [{"row": names[row].id, "task": names[row].task, "like": names[other].id, "like_task": names[other].task,
                       "jaccard": round(alike, 4)} for row, (other, alike) in sorted(like.items())]
        self._report = {"held_out": sum(held_out), "like_training": len(like)}
        return [drop("like_training", f"{like[row][1]:.2f} like {names[like[row][0]].id}") if row in like else KEEP
                for row in range(len(keys))]

    def _most_alike(self, sets: Sequence[Hashes], held_out: Sequence[bool]) -> dict[int, tuple[int, float]]:
        """Held-out row -> (the training row that is most like it, their Jaccard), where that reaches the threshold."""
        filled = [row for row, shingles in enumerate(sets) if len(shingles)]
        found: dict[int, tuple[int, float]] = {}
        compared: set[tuple[int, int]] = set()
        for bucket in buckets(band_keys([sets[row] for row in filled], self.config.threshold)) if filled else ():
            rows = [filled[number] for number in bucket]
            trained = [row for row in rows if not held_out[row]]
            for pair in ((row, other) for row in rows if held_out[row] for other in trained):
                if pair in compared:
                    continue
                compared.add(pair)
                alike = jaccard(sets[pair[0]], sets[pair[1]])
                if alike >= self.config.threshold and (pair[0] not in found or (-alike, pair[1]) < (-found[pair[0]][1], found[pair[0]][0])):
                    found[pair[0]] = (pair[1], alike)
        return found

    def report(self) -> dict[str, Any]:
        """`held_out` rows that were looked at, and how many of them were `like_training`."""
        return self._report

    def lists(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """`like-training.jsonl`: each row that went, the training row that is most like it, their Jaccard."""
        return {"like-training.jsonl": self._gone}
