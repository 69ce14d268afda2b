"""Which tensors the output has, and where the values of each lie before anything is added: in the base, or whole in an adapter.

An embedding and a head that are tied stay so where both end as the same numbers. An adapter that changes one of the two is merged as
it was trained, with two different tensors: the output is untied, `tie_word_embeddings: false`.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch

from mft.errors import ModelError
from mft.merging.changes import Changes
from mft.merging.lora import EMBEDDING_LAYERS
from mft.merging.reader import SafetensorsReader
from mft.modeling.safetensors_header import StoredTensor
from mft.modeling.targets import base_layers

logger = logging.getLogger(__name__)

COMPARED_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class MergePlan:
    """The tensors of the output by name; each says in which file its values lie before the change. `config`: what config.json says
    differently from the base's."""

    tensors: dict[str, StoredTensor]
    config: dict[str, Any]

    @property
    def resized(self) -> bool:
        """Whether the adapter brought another number of tokens."""
        return "vocab_size" in self.config


def plan_merge(base: SafetensorsReader, changes: Changes, config: dict[str, Any]) -> MergePlan:
    """Lay out the output of a merge. Whole tensors that only repeat the base are taken out of `changes`.

    Raises:
        ModelError: an adapter's whole tensor has no place in the base; embedding and head would have different numbers of rows.
    """
    tensors, changed, embedding, head = dict(base.tensors), dict[str, Any](), "", ""
    if any(name.split(".")[-2:-1] and name.split(".")[-2] in EMBEDDING_LAYERS for name in (*changes.terms, *changes.wholes)):
        embedding, head, tied = _ends(config)
        if tied:
            changed |= _untie(base, tensors, changes, embedding, head)
    faults = []
    for name, tensor in [*changes.wholes.items(), *(item for item in changes.under.items() if item[0] not in changes.wholes)]:
        if name not in tensors:
            faults.append(f"'{name}' is not a tensor of the base")
        elif not _has_place(tensor, tensors[name], name in (embedding, head)):
            faults.append(f"'{name}' is {list(tensors[name].shape)} in the base, {list(tensor.shape)} in the adapter")
        elif name in changes.wholes or not _repeats(base, tensor, tensors[name]):
            tensors[name] = replace(tensor, name=name)
    rows = {tensors[name].shape[0] for name in (embedding, head) if name in tensors}
    if len(rows) > 1 and not faults:
        faults.append(f"'{embedding}' and '{head}' would have {' and '.join(map(str, sorted(rows)))} rows; an adapter on a base with added "
                      "tokens holds both")
    if faults:
        folders = ", ".join(str(adapter.folder) for adapter in changes.adapters)
        raise ModelError(f"{folders}: does not fit this base:\n  " + "\n  ".join(faults))
    if embedding in tensors and tensors[embedding].shape[0] != base.tensors[embedding].shape[0]:
        changed["vocab_size"] = rows.pop()
    return MergePlan(tensors, changed)


def _ends(config: dict[str, Any]) -> tuple[str, str, bool]:
    """Names of the weights of embedding and head, and whether they are tied."""
    layers = base_layers(config)
    return f"{layers.embedding}.weight", f"{layers.head}.weight", layers.tied


def _untie(base: SafetensorsReader, tensors: dict[str, StoredTensor], changes: Changes, embedding: str, head: str) -> dict[str, Any]:
    """Give a tied head a tensor of its own where it ends as other numbers than the embedding; returns what the config says then."""
    touched = [name for name in (embedding, head) if name in changes.terms or name in changes.wholes]
    if not touched:
        return {}
    if head in base.tensors:
        raise ModelError(f"'{touched[0]}' is tied to another tensor (tie_word_embeddings), which the base stores too and which would "
                         "change")
    first, second = changes.wholes.get(embedding), changes.wholes.get(head)
    if first and second and not changes.terms.keys() & {embedding, head} and _same_values(base, first, second):
        del changes.wholes[head]
        return {}
    if embedding in changes.rows:
        raise ModelError(f"'{touched[0]}' is tied to another tensor (tie_word_embeddings), and token rows are trained for both besides; "
                         "such an adapter is not merged")
    logger.warning("the adapter changes '%s' alone of embedding and head, which the base ties: the merged model holds both",
                   touched[0]) if len(touched) == 1 else logger.warning("embedding and head of the merged model are not tied any more")
    tensors[head] = replace(tensors[embedding], name=head)
    return {"tie_word_embeddings": False}


def _has_place(tensor: StoredTensor, place: StoredTensor, may_grow: bool) -> bool:
    same = tensor.shape == place.shape or (may_grow and len(tensor.shape) == 2 and tensor.shape[1:] == place.shape[1:])
    return same and tensor.is_floating == place.is_floating


def _repeats(base: SafetensorsReader, tensor: StoredTensor, original: StoredTensor) -> bool:
    """Whether a copy of a weight is the base's, rounded to the copy's dtype."""
    return tensor.shape == original.shape and _same_values(base, original, tensor)


def _same_values(reader: SafetensorsReader, first: StoredTensor, second: StoredTensor) -> bool:
    """Whether the values of `first`, in the dtype of `second`, are those of `second`. A few MB are in memory at a time."""
    if first.shape != second.shape:
        return False
    step = COMPARED_BYTES // 8
    for start in range(0, first.num_elements, step):
        count = min(step, first.num_elements - start)
        one, other = (reader.read_numbers(tensor, start, count) for tensor in (first, second))
        if not torch.equal(one.to(other.dtype), other):
            return False
    return True
