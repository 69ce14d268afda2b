"""When to stop writing: at a stop token, or once a stop string stands in the text."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from mft.generation.completion import stop_position
from mft.tokenization.load import TextTokenizer


class StopWriting(StoppingCriteria):
    """Stops each row of a batch by itself and keeps what the row wrote until then.

    `written[i]` are the ids of row i up to and with what stopped it; what `generate` appends later (padding, or tokens
    of a row that runs on beside others) is not in it.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], tokenizer: TextTokenizer, *, stop_ids: Collection[int],
                 stop_strings: Collection[str], watch: Callable[[list[list[int]]], None] | None = None) -> None:
        self._watch = watch
        self.written: list[list[int]] = [[] for _ in prompts]
        self._prompts = prompts
        self._tokenizer = tokenizer
        self._stop_ids = frozenset(stop_ids)
        self._stop_strings = tuple(stop_strings)
        # A token is at least one byte, so these last tokens hold every stop string that the newest one can end.
        self._tail = max((len(stop.encode()) for stop in self._stop_strings), default=0)
        self._finished = [False] * len(prompts)

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Take in the newest token of each row ([B, T] ids so far); True for rows that are finished."""
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if not self._finished[row]:
                self.written[row].append(token)
                self._finished[row] = token in self._stop_ids or self._has_stop_string(row)
        if self._watch is not None:
            self._watch(self.written)
        return torch.tensor(self._finished, device=input_ids.device)

    def _has_stop_string(self, row: int) -> bool:
        ids = self.written[row]
        start = max(0, len(ids) - self._tail)
        before = ids[:start] if start else self._prompts[row]
        return stop_position(self._tokenizer.decode_continuation(before, ids[start:]), self._stop_strings) is not None
