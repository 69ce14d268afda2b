"""Which linear layers of a base an adapter goes on, found from the base's config alone, before any weight is read."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from mft.errors import ModelError
from mft.modeling.config import RELEASE_2023, AdapterConfig

SHOWN = 12


@dataclass(frozen=True, slots=True)
class BaseLayers:
    """The modules of a base: `kinds` is the class of each by its full name, `embedding` and `head` the names of first and last layer.

    `tied`: the head's weight is the embedding's.
    """

    kinds: dict[str, type[nn.Module]]
    embedding: str | None
    head: str | None
    tied: bool

    @property
    def linear(self) -> list[str]:
        """Full names of the linear layers, in the order of the model."""
        return [name for name, kind in self.kinds.items() if issubclass(kind, nn.Linear)]


def base_layers(base_config: dict[str, Any]) -> BaseLayers:
    """The modules of the model that a config.json describes, built on the meta device: no weight takes memory (34B: 0.6 s).

    Raises:
        ModelError: transformers has no causal language model for this config.
    """
    options = {key: value for key, value in base_config.items() if key not in ("quantization_config", "model_type")}
    kind = str(base_config.get("model_type"))
    try:
        config = AutoConfig.for_model(kind, **options)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"config.json: no causal language model can be built for model_type '{kind}': {reason}") from error
    names = {module: name for name, module in model.named_modules()}
    embedding, head = names.get(model.get_input_embeddings()), names.get(model.get_output_embeddings())
    return BaseLayers({name: type(module) for name, module in model.named_modules() if name}, embedding, head,
                      bool(getattr(config.get_text_config(), "tie_word_embeddings", False)))


def target_faults(base_config: dict[str, Any], adapter: AdapterConfig) -> list[str]:
    """Why `adapter.targets` does not fit the model of this config.json; one message for each name that does not.

    Each name must be that of a module, the module a linear layer, and its weight not shared with the embedding (an adapter
    on a tied head could not be merged).
    """
    if adapter.type == "full":
        return []
    layers = base_layers(base_config)
    if adapter.targets == "all-linear":
        found = targeted_modules(layers, adapter)
        return [] if found else [f"adapter.targets: all-linear: {base_config.get('model_type')} has no linear layer but its head"]
    return [fault for name in target_names(adapter) if (fault := _fault(name, adapter, layers))]


def target_names(adapter: AdapterConfig) -> list[str]:
    """The names that `targets` stands for; none for `all-linear`."""
    if adapter.targets == "release_2023":
        return list(RELEASE_2023)
    return list(adapter.targets) if isinstance(adapter.targets, list) else []


def targeted_modules(layers: BaseLayers, adapter: AdapterConfig) -> list[str]:
    """Full names of the linear layers that the adapter goes on, in the order of the model (PEFT's rule: equal, or ends in .name)."""
    if adapter.targets == "all-linear":
        return [name for name in layers.linear if name != layers.head]
    names = target_names(adapter)
    return [name for name in layers.linear if any(_is_called(name, target) for target in names)]


def _is_called(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _fault(target: str, adapter: AdapterConfig, layers: BaseLayers) -> str | None:
    where = f"adapter.targets: {adapter.targets}: '{target}'" if isinstance(adapter.targets, str) else f"adapter.targets: '{target}'"
    called = [name for name in layers.kinds if _is_called(name, target)]
    known = list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in layers.linear))
    listed = ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
    if not called:
        near = get_close_matches(target, known, n=2, cutoff=0.5)
        hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
        return f"{where} is not a module of this base{hint}; linear layers: {listed}"
    if odd := [name for name in called if not issubclass(layers.kinds[name], nn.Linear)]:
        return f"{where} is a {layers.kinds[odd[0]].__name__}, not a linear layer ({odd[0]}); linear layers: {listed}"
    if layers.tied and layers.head in called:
        return (f"{where}: the base's head shares its weight with the embedding (tie_word_embeddings), "
                "so an adapter on it could not be merged; leave it out")
    return None
