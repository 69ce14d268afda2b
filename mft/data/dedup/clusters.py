"""Clusters of items that are linked, by union-find; the first item of a cluster stands for it."""

from collections import defaultdict


class Clusters:
    """`size` items, each alone at first. Which links are given, not their order, decides on the clusters."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, item: int) -> int:
        """The first item of the cluster that `item` is in."""
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def link(self, first: int, second: int) -> None:
        """Make one cluster of the clusters of two items."""
        low, high = sorted((self.find(first), self.find(second)))
        self._parent[high] = low

    def groups(self) -> list[list[int]]:
        """The clusters of two items or more, each in ascending order, by their first items."""
        members: defaultdict[int, list[int]] = defaultdict(list)
        for item in range(len(self._parent)):
            members[self.find(item)].append(item)
        return [group for group in members.values() if len(group) > 1]
