"""Which of an assistant's text a message marks as untrained, in the spellings of several tools."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from mft.conversation import Span
from mft.data.converters.base import Row, RowFault, shown

FLAGS: Final[Mapping[str, str]] = {"train": "mft", "training": "axolotl", "weight": "OpenAI", "loss_weight": "LLaMA-Factory"}
"""Key -> whose spelling it is. The first two are true or false, the others 1 or 0."""

MARK_KEYS: Final = frozenset({*FLAGS, "untrained", "train_detail"})


def train_flag(item: Row, number: int) -> bool:
    """Whether message `number` is trained: `train`, `training` (true, false), `weight`, `loss_weight` (0, 1); null is no mark.

    Raises:
        RowFault: `bad_train_flag`: another value (a share of the loss is not supported), or two keys that disagree.
    """
    marks = {key: _flag(key, item[key], number) for key in FLAGS if item.get(key) is not None}
    if len(set(marks.values())) > 1:
        raise RowFault("bad_train_flag", f"message {number}: {' and '.join(marks)} disagree")
    return all(marks.values())


def _flag(key: str, value: Any, number: int) -> bool:
    if key in ("train", "training"):
        if isinstance(value, bool):
            return value
        raise RowFault("bad_train_flag", f"message {number}: {key} must be true or false, not {shown(value)}")
    if isinstance(value, int | float) and not isinstance(value, bool) and value in (0, 1):
        return bool(value)
    raise RowFault("bad_train_flag", f"message {number}: {key} must be 0 or 1, not {shown(value)}")


def untrained_spans(item: Row, length: int, number: int) -> tuple[Span, ...]:
    """The characters of message `number` that are left out: `untrained` ([start, end), ...) and those of `train_detail`
    ({begin_offset, end_offset, train: false}, where end_offset is the last character), in order, overlaps joined.

    Raises:
        RowFault: `bad_train_span`: not such a list, outside the text, or both trained and untrained.
    """
    if item.get("untrained") is None and item.get("train_detail") is None:
        return ()
    details = list(_details(item.get("train_detail") or (), number))
    left_out = [*_pairs(item.get("untrained") or (), number), *(span for span, train in details if not train)]
    trained = [span for span, train in details if train]
    for start, end in (*left_out, *trained):
        if not 0 <= start < end <= length:
            raise RowFault("bad_train_span", f"message {number}: [{start}, {end}) is no part of its {length} characters")
    if any(start < other_end and other_start < end for start, end in trained for other_start, other_end in left_out):
        raise RowFault("bad_train_span", f"message {number}: characters are marked both trained and untrained")
    return _joined(sorted(left_out))


def _pairs(items: Any, number: int) -> Iterator[Span]:
    for item in _list(items, number):
        if not isinstance(item, Sequence) or len(item) != 2 or not all(_is_offset(part) for part in item):
            raise RowFault("bad_train_span", f"message {number}: untrained must be a list of [start, end]")
        yield item[0], item[1]


def _details(items: Any, number: int) -> Iterator[tuple[Span, bool]]:
    for item in _list(items, number):
        entry = item if isinstance(item, dict) else {}
        if not _is_offset(entry.get("begin_offset")) or not _is_offset(entry.get("end_offset")) or not isinstance(entry.get("train"), bool):
            raise RowFault("bad_train_span", f"message {number}: train_detail must be a list of {{begin_offset, end_offset, train}}")
        yield (entry["begin_offset"], entry["end_offset"] + 1), entry["train"]


def _list(items: Any, number: int) -> Sequence[Any]:
    if not isinstance(items, list | tuple):
        raise RowFault("bad_train_span", f"message {number}: expected a list, found {shown(items)}")
    return items


def _is_offset(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Spans in order, those that touch or overlap as one.

    >>> _joined([(0, 2), (1, 4), (6, 7)])
    ((0, 4), (6, 7))
    """
    out: list[Span] = []
    for start, end in spans:
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return tuple(out)
