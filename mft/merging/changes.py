"""What one or several adapters make of the tensors of a base, taken together.

With several adapters, or a weight other than 1, the update is the linear combination W + sum_i w_i s_i B_i A_i. The sum is computed as
one product of the matrices laid side by side, so it is rounded once, and by the same steps as PEFT's
`add_weighted_adapter(combination_type="cat")`. DoRA, token rows and whole tensors are no terms of a sum: each may come from one
adapter, of weight 1, alone on its tensor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from mft.errors import ModelError
from mft.merging import token_rows
from mft.merging.lora import WEIGHTS, LoraAdapter, LoraPair
from mft.merging.token_rows import TokenRows
from mft.modeling.safetensors_header import StoredTensor


class LowRank(NamedTuple):
    """`scale * b @ a` is added to a weight [rows, columns]. Shapes: a [rank, columns], b [rows, rank], magnitude [rows] with DoRA;
    fp32."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    magnitude: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Term:
    """A pair of one adapter and the weight that the adapter is given. `transposed`: the base holds the tensor as [in, out]."""

    adapter: LoraAdapter
    pair: LoraPair
    weight: float
    transposed: bool = False

    @property
    def scale(self) -> float:
        """The pair's own scale times the adapter's weight."""
        return self.pair.scale if self.weight == 1 else self.weight * self.pair.scale


class Changes:
    """All that some adapters change: `terms`, `rows` and `wholes` by name of the base tensor.

    Raises:
        ModelError: the adapters cannot be taken together; the message names the tensor.
    """

    def __init__(self, adapters: Sequence[LoraAdapter], weights: Sequence[float] | None = None) -> None:
        self.adapters = list(adapters)
        self.weights = [1.0] * len(self.adapters) if not weights else [float(weight) for weight in weights]
        assert len(self.weights) == len(self.adapters)
        self.terms: dict[str, list[Term]] = {}
        self.rows: dict[str, TokenRows] = {}
        self.wholes: dict[str, StoredTensor] = {}
        self.under: dict[str, StoredTensor] = {}
        self._rows_of: dict[str, LoraAdapter] = {}
        faults: list[str] = []
        for adapter, weight in zip(self.adapters, self.weights, strict=True):
            faults += self._take(adapter, weight)
        if faults:
            raise ModelError("\n".join(faults))

    def _take(self, adapter: LoraAdapter, weight: float) -> list[str]:
        faults = []
        alone = [*adapter.rows, *adapter.wholes, *(pair.target for pair in adapter.pairs.values() if pair.magnitude)]
        what = "has DoRA's lengths, token rows or a whole tensor (modules_to_save)"
        if weight != 1 and alone:
            faults.append(f"{adapter.folder}: {what} for '{alone[0]}', which a weight of {weight:g} means nothing for; give it weight 1")
        taken = self.rows.keys() | self.wholes.keys() | {name for name, terms in self.terms.items() if terms[0].pair.magnitude}
        own = [*adapter.rows, *adapter.wholes, *adapter.pairs]
        if twice := sorted((taken & set(own)) | (set(alone) & self.targets)):
            faults.append(f"{adapter.folder}: '{twice[0]}' is changed by another adapter too, and one of the two {what} for it; such a "
                          "change cannot be added to another")
        for name, pair in adapter.pairs.items():
            self.terms.setdefault(name, []).append(Term(adapter, pair, weight))
        self.rows |= adapter.rows
        self.wholes |= adapter.wholes
        self._rows_of |= dict.fromkeys(adapter.rows, adapter)
        for name, tensor in adapter.under.items():
            self.under.setdefault(name, tensor)
        return faults

    @property
    def targets(self) -> frozenset[str]:
        """Names of the base tensors that are changed."""
        return frozenset((*self.terms, *self.rows, *self.wholes))

    def load(self, name: str) -> LowRank | None:
        """What is added to the base tensor `name`; None if nothing is."""
        terms = self.terms.get(name)
        if not terms:
            return None
        loaded = [self._matrices(term) for term in terms]
        if len(terms) == 1:
            (a, b), term = loaded[0], terms[0]
            return LowRank(a, b, term.scale, term.adapter.read(term.pair.magnitude) if term.pair.magnitude else None)
        scaled = [a * term.weight * term.pair.scale for (a, _), term in zip(loaded, terms, strict=True)]
        return LowRank(torch.cat(scaled), torch.cat([b for _, b in loaded], dim=1), 1.0, None)

    def load_rows(self, name: str) -> torch.Tensor:
        """Trained token rows [tokens, hidden] of the base tensor `name`, float32."""
        return self._rows_of[name].read(self.rows[name].values)

    def _matrices(self, term: Term) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = term.adapter.read(term.pair.a), term.adapter.read(term.pair.b)
        return (b.T.contiguous(), a.T.contiguous()) if term.transposed else (a, b)

    def fit(self, tensors: Mapping[str, StoredTensor], config: Mapping[str, Any]) -> None:
        """Check that all of it fits the tensors it will be merged into, and that it says something. Finds out what is transposed.

        `tensors`: those of the output before the change (plan.py), `config`: the base's.

        Raises:
            ModelError: names every pair without a base tensor or of another shape, token rows that do not fit, a tensor with values
                that are not finite, or adapters that would change nothing.
        """
        faults: list[str] = []
        for name, terms in self.terms.items():
            oriented = [orient(term, tensors.get(name)) for term in terms]
            faults += [found for found in oriented if isinstance(found, str)]
            self.terms[name] = [found for found in oriented if isinstance(found, Term)]
        faults += self._mixed_orientations(tensors)
        faults += [fault for rows in self.rows.values() if (fault := token_rows.misfit(rows, tensors, config))]
        faults += [f"'{name}' is changed by a LoRA pair and by token rows, which is not merged"
                   for name in sorted(self.terms.keys() & self.rows.keys())]
        for adapter in self.adapters:
            lost = token_rows.lost_modules(adapter.rows, adapter.config.get(token_rows.KEY), tied=bool(config.get("tie_word_embeddings")))
            faults += [f"'{name}': adapter_config.json says {token_rows.KEY}, but {WEIGHTS} has no token rows for it" for name in lost]
        if faults:
            shown = faults[:10] + ([f"... and {len(faults) - 10} more"] if len(faults) > 10 else [])
            folders = ", ".join(str(adapter.folder) for adapter in self.adapters)
            raise ModelError(f"{folders}: does not fit this base:\n  " + "\n  ".join(shown))
        self._check_values()

    def _check_values(self) -> None:
        """Every number finite, and at least one change."""
        for name, rows in self.rows.items():
            _check_finite(rows.values, self.load_rows(name))
        changes = bool(self.wholes)
        for term in (term for terms in self.terms.values() for term in terms):
            pair = term.pair
            a, b = term.adapter.read(pair.a), term.adapter.read(pair.b)
            for stored, values in ((pair.a, a), (pair.b, b)):
                _check_finite(stored, values)
            if pair.magnitude:
                _check_finite(pair.magnitude, term.adapter.read(pair.magnitude))
            changes = changes or (term.scale != 0 and bool(a.any()) and bool(b.any()))
        if not changes:
            raise ModelError(f"{self.adapters[0].folder}: every delta is zero, so the merged model would be the base; was the adapter "
                             "trained?")

    def _mixed_orientations(self, tensors: Mapping[str, StoredTensor]) -> list[str]:
        """Square matrices whose orientation the other layers of the same adapter cast doubt on."""
        faults = []
        for adapter in self.adapters:
            terms = [term for terms in self.terms.values() for term in terms if term.adapter is adapter and not term.pair.embedding]
            seen = {term.transposed for term in terms if term.pair.shape[0] != term.pair.shape[1]}
            flag = bool(adapter.config.get("fan_in_fan_out"))
            square = [term.pair.target for term in terms if term.pair.shape[0] == term.pair.shape[1]]
            if square and seen and seen != {flag}:
                faults.append(f"'{square[0]}' is square, and fan_in_fan_out={flag} is not what the shapes of the adapter's other layers "
                              "say, so nothing tells which side is which")
        return faults


def orient(term: Term, tensor: StoredTensor | None) -> Term | str:
    """The term as its tensor holds it, [out, in] or [in, out] (Conv1D of GPT-2, embeddings); or why it cannot be added."""
    pair = term.pair
    if tensor is None:
        return f"'{pair.target}' is not a tensor of the base"
    flag = pair.embedding or bool(term.adapter.config.get("fan_in_fan_out"))
    fits = [way for way in (flag, not flag) if tensor.shape == (pair.shape[::-1] if way else pair.shape)]
    if not fits or (pair.embedding and not fits[0]):
        return f"'{pair.target}' is {list(tensor.shape)} in the base, {list(pair.shape[::-1] if flag else pair.shape)} in the adapter"
    if not tensor.is_floating:
        return f"'{pair.target}' is {tensor.dtype} in the base: quantised weights cannot be added to"
    if fits[0] and pair.magnitude:
        return f"'{pair.target}' is stored as [in, out] (fan_in_fan_out), where DoRA's lengths go over columns; it is not merged"
    return replace(term, transposed=fits[0])


def _check_finite(stored: StoredTensor, values: torch.Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise ModelError(f"{stored.path}: tensor '{stored.name}' has values that are not finite; the training diverged")
