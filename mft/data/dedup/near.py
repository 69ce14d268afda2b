"""`near_dedup`: rows that say nearly the same, found by MinHash and verified by the true Jaccard of their shingles.

    rows, best first -> shingle sets -> MinHash -> buckets of rows that share a band -> pairs with Jaccard >= threshold
    -> clusters -> from the best row on, a row stays unless it is like one that stays

"Best" is a rule over what rows say: the longest answers, then the smallest sha256 of the texts, then task and id. So the
verdicts do not depend on the order of the rows, on their files or on a number of processes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mft.conversation import Conversation
from mft.data.dedup.clusters import Clusters
from mft.data.dedup.config import NearDedupStep
from mft.data.dedup.minhash import band_keys, buckets
from mft.data.dedup.shingles import Hashes, Shingler, jaccard
from mft.data.filters.parts import texts_of
from mft.data.verdict import KEEP, GroupStep, RowName, Verdict, drop
from mft.hashes import sha256_json

LARGEST = 10
"""Clusters whose sizes are named in the report."""


RANK = 40
"""Bytes of a key that say how good a row is; the shingles stand behind them."""

SHINGLE = np.dtype("<u8")


class NearDedup(GroupStep):
    """`near_duplicate`: a row that is like it stays. Rows without a token in the judged part are kept."""

    def __init__(self, config: NearDedupStep) -> None:
        self.config = config
        self._shingler = Shingler(config.ngram)
        self._report: dict[str, Any] = {}
        self._gone: list[dict[str, Any]] = []

    def key(self, row: Conversation) -> bytes:
        """40 bytes that sort the best row first, then the shingles, 8 bytes each."""
        return _rank(row) + self._shingler(texts_of(row, self.config.on)).astype(SHINGLE).tobytes()

    def judge_keys(self, keys: Sequence[bytes], names: Sequence[RowName]) -> Sequence[Verdict]:
        """KEEP, or `near_duplicate` with the id of a row that stays and the Jaccard of the two, at or above the threshold."""
        best_first = sorted(range(len(keys)), key=lambda index: (keys[index][:RANK], names[index].task, names[index].id))
        sets = {index: shingles for index in best_first if len(shingles := np.frombuffer(keys[index], SHINGLE, offset=RANK))}
        order = list(sets)
        pairs = _Pairs(list(sets.values()), self.config.threshold)
        clusters = pairs.clusters()
        verdicts, staying = [KEEP] * len(keys), 0
        for cluster in clusters:
            stay_for = pairs.cover(cluster)
            staying += len(cluster) - len(stay_for)
            for item, (stays, alike) in stay_for.items():
                row, other = names[order[item]], names[order[stays]]
                verdicts[order[item]] = drop("near_duplicate", f"of {other.id}, Jaccard {alike:.2f}")
                self._gone.append({"row": row.id, "row_task": row.task, "of": other.id, "of_task": other.task, "jaccard": round(alike, 3)})
        self._report = {
            "clusters": len(clusters), "largest": sorted(map(len, clusters), reverse=True)[:LARGEST], "stay_of_clusters": staying,
            "pairs_checked": pairs.checked, "pairs_verified": pairs.verified, "without_text": len(keys) - len(order)}
        return verdicts

    def report(self) -> dict[str, Any]:
        """`clusters` found, sizes of the `largest`, rows that stay of all clusters, and the pairs that made them.

        `pairs_checked` had their Jaccard computed (unless the two were in one cluster already), `pairs_verified` reached the
        threshold. `without_text`: rows with nothing to compare.
        """
        return self._report

    def lists(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """`near-duplicates.jsonl`: each row that went, the one that stays for it, their Jaccard."""
        return {"near-duplicates.jsonl": self._gone}


class _Pairs:
    """Verifies the pairs that the buckets hold, and links those that are alike."""

    def __init__(self, sets: Sequence[Hashes], threshold: float) -> None:
        self.sets = sets
        self.threshold = threshold
        self.checked = self.verified = 0
        self._unlike: set[tuple[int, int]] = set()

    def clusters(self) -> list[list[int]]:
        """Groups of two sets or more that are linked by pairs at or above the threshold, each in ascending order."""
        found = Clusters(len(self.sets))
        distinct = self._link_equal(found)
        for bucket in buckets(band_keys([self.sets[item] for item in distinct], self.threshold)) if distinct else ():
            members = [distinct[number] for number in bucket]
            for place, item in enumerate(members):
                for other in members[:place]:
                    if found.find(item) != found.find(other) and self._alike(other, item):
                        found.link(other, item)
        return found.groups()

    def cover(self, cluster: Sequence[int]) -> dict[int, tuple[int, float]]:
        """For each set of a cluster that goes, the one that stays for it and their Jaccard.

        A cluster is a chain (A like B, B like C), so more than one may stay: from the best on, a set stays unless it is like one
        that stays already. So none goes for a likeness that it does not have, and no two that stay are alike.
        """
        stay: list[int] = []
        gone: dict[int, tuple[int, float]] = {}
        for item in cluster:
            likeness = ((other, jaccard(self.sets[other], self.sets[item])) for other in stay if self._may_be_alike(other, item))
            found = next((pair for pair in likeness if pair[1] >= self.threshold), None)
            if found is None:
                stay.append(item)
            else:
                gone[item] = found
        return gone

    def _link_equal(self, found: Clusters) -> list[int]:
        """Link equal sets; the first of each kind is returned, so that a thousand equal rows are compared once."""
        first: dict[bytes, int] = {}
        for item, shingles in enumerate(self.sets):
            before = first.setdefault(shingles.tobytes(), item)
            if before != item:
                found.link(before, item)
        return list(first.values())

    def _may_be_alike(self, first: int, second: int) -> bool:
        """Sizes alone rule many pairs out, since Jaccard <= smaller / larger."""
        small, large = sorted((len(self.sets[first]), len(self.sets[second])))
        return small >= self.threshold * large

    def _alike(self, first: int, second: int) -> bool:
        """True Jaccard at or above the threshold, computed once a pair."""
        if (first, second) in self._unlike or not self._may_be_alike(first, second):
            return False
        self.checked += 1
        if jaccard(self.sets[first], self.sets[second]) >= self.threshold:
            self.verified += 1
            return True
        self._unlike.add((first, second))
        return False


def _rank(row: Conversation) -> bytes:
    """Sorts the best row first."""
    answers = sum(len(text) for text in texts_of(row, "answer"))
    texts = sha256_json([(message.role, message.content) for message in row.messages])
    return (2**64 - 1 - answers).to_bytes(8, "big") + bytes.fromhex(texts)
