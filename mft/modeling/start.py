"""An earlier adapter that a run goes on with: whether it is of the same kind, and its weights."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from mft.errors import ModelError
from mft.files import read_json
from mft.modeling.config import AdapterConfig
from mft.modeling.safetensors_header import read_header
from mft.modeling.targets import base_layers, targeted_modules

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
SHOWN = 3


def start_faults(start: Path, adapter: AdapterConfig, base_config: dict[str, Any], base_files: dict[str, str] | None = None) -> list[str]:
    """What differs between the adapter in `start` and the one that the config asks for; one message each.

    Type, rank, alpha and targets must be equal; dropout may differ. `base_files`: sha256 of the base's files, which must be those
    that the adapter's `mft.json` names, if it has one. No weight is read.

    Raises:
        ModelError: `start` is no LoRA adapter folder.
    """
    if adapter.type == "full":
        return [f"init_from: {start} is an adapter, but adapter.type is full; merge it first, and train the merged model"]
    if not (start / "adapter_config.json").is_file() or not (start / WEIGHTS).is_file():
        raise ModelError(f"{start}: has no adapter_config.json or no {WEIGHTS}, so it is no adapter to go on with")
    config = read_json(start / "adapter_config.json")
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{start}: peft_type is {config.get('peft_type')!r}; only LoRA adapters (lora, rslora, dora) are gone on with")
    faults = [f"init_from: adapter.{name} is {asked}, but {start} was trained with {name} {found}"
              for name, asked, found in (("type", adapter.type, _type(config)), ("rank", adapter.rank, config.get("r")),
                                         ("alpha", f"{adapter.alpha:g}", f"{config.get('lora_alpha', 0):g}")) if asked != found]
    known = read_json(start / "mft.json")["base_files"] if (start / "mft.json").is_file() else {}
    if base_files and (other := sorted(name for name, sha256 in known.items() if base_files.get(name) != sha256)):
        faults.append(f"init_from: {start} was trained on another base: {', '.join(other)} differ from its mft.json")
    asked_for = set(targeted_modules(base_layers(base_config), adapter))
    trained = {tensor.name.removeprefix(PREFIX).split(".lora_")[0] for tensor in read_header(start / WEIGHTS) if ".lora_" in tensor.name}
    for names, what in ((asked_for - trained, "which it does not have"), (trained - asked_for, "which adapter.targets leaves out")):
        if names:
            faults.append(f"init_from: adapter.targets: {start} differs in {_listed(names)}, {what}")
    return faults


def load_start(model: nn.Module, start: Path) -> None:
    """Put the weights of a folder into the parameters of a model that train: an adapter's, or a whole model's where all train.

    Works where ZeRO-3 has sharded the parameters; all ranks must call it.

    Raises:
        ModelError: the folder has no weights, or a tensor is missing, too many or of another shape; each is named.
    """
    own = {_stored_name(name): parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    files = [start / WEIGHTS] if (start / WEIGHTS).is_file() else sorted(start.glob("model*.safetensors"))
    if not files:
        raise ModelError(f"{start}: has neither {WEIGHTS} nor model.safetensors")
    stored = {name: tensor for file in files for name, tensor in load_file(file).items()}
    odd = {name for name in own.keys() | stored.keys() if name not in own or name not in stored or _shape(own[name]) != stored[name].shape}
    if odd:
        raise ModelError(f"{start}: does not hold the weights that this run trains: {_listed(odd)} missing, too many or of another shape")
    for name, parameter in own.items():
        with _gathered(parameter), torch.no_grad():
            parameter.copy_(stored[name])


def _stored_name(name: str) -> str:
    """As PEFT writes the name of a parameter: without the adapter's own name."""
    return name.replace(".default.", ".").removesuffix(".default").replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def _shape(parameter: nn.Parameter) -> torch.Size:
    """Of the whole parameter, also under ZeRO-3."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def _gathered(parameter: nn.Parameter) -> AbstractContextManager[Any]:
    """Under ZeRO-3: the whole parameter inside the block, cut again after it."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters([parameter], modifier_rank=0)
    return gathered


def _type(config: dict[str, Any]) -> str:
    if config.get("use_dora"):
        return "dora" if not config.get("use_rslora") else "dora with rslora"
    return "rslora" if config.get("use_rslora") else "lora"


def _listed(names: set[str]) -> str:
    shown = sorted(names)[:SHOWN]
    return ", ".join(shown) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
