"""The inputs of a merge, opened and checked against each other before a byte is written."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mft import __version__
from mft.errors import ModelError
from mft.formats.base import PromptFormat
from mft.hashes import sha256_json
from mft.merging.base_values import BaseValues
from mft.merging.changes import Changes
from mft.merging.config import MergeOptions
from mft.merging.folder import load_format
from mft.merging.lora import LoraAdapter
from mft.merging.nf4 import Nf4RoundTrip, quantised_names
from mft.merging.origin import AdapterOrigin, check_base, hash_files, read_origin
from mft.merging.plan import MergePlan, plan_merge
from mft.merging.reader import SafetensorsReader, open_model
from mft.modeling.base import read_model_config
from mft.modeling.config import QuantizationConfig
from mft.tokenization.load import TextTokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MergeJob:
    """What is merged, and how. `tokenizer`: the folder that the tokenizer is taken from."""

    base: Path
    base_config: dict[str, Any]
    weights: SafetensorsReader
    changes: Changes
    plan: MergePlan
    origins: tuple[AdapterOrigin, ...]
    options: MergeOptions
    tokenizer: Path
    known_format: tuple[TextTokenizer, PromptFormat] | None

    @property
    def config(self) -> dict[str, Any]:
        """What config.json of the output says."""
        return self.base_config | self.plan.config

    @property
    def base_name(self) -> str:
        """What the adapters call their base, else its folder's name."""
        return next((origin.base for origin in self.origins if origin.base), self.base.name)

    @property
    def format_reference(self) -> str | dict[str, Any] | None:
        """The prompt format, as `mft.json` names it."""
        return self.known_format[1].reference if self.known_format else None

    @property
    def named_adapters(self) -> list[dict[str, Any]]:
        """Folder and weight of each adapter."""
        return [{"folder": str(adapter.folder), "weight": weight}
                for adapter, weight in zip(self.changes.adapters, self.changes.weights, strict=True)]

    @cached_property
    def quantization(self) -> QuantizationConfig | None:
        """The 4-bit copy that the adapters were trained on; None where they do not say, or were trained on whole weights."""
        first = self.origins[0].quantization
        return first if first and first.type == "nf4" and all(origin.quantization == first for origin in self.origins) else None

    @cached_property
    def round_trip(self) -> Nf4RoundTrip | None:
        """What NF4 makes of the base's linear layers, where that is what the adapters were trained on.

        Raises:
            ModelError: nothing tells which tensors were 4-bit, and `onto` asks for them.
        """
        if self.quantization is None:
            return None
        try:
            names = quantised_names(self.base_config, self.plan.tensors)
        except ModelError as error:
            if self.options.onto == "quantised":
                raise
            logger.warning("how far the merged model is from the trained one is not measured: %s", error)
            return None
        return Nf4RoundTrip(self.weights, {name: self.plan.tensors[name] for name in names}, self.quantization)

    @property
    def values(self) -> BaseValues:
        """The values that the changes are added to."""
        return BaseValues(self.weights, self.round_trip if self.options.onto == "quantised" else None)

    @property
    def cut_by_rows(self) -> frozenset[str]:
        """Tensors whose blocks are whole rows."""
        return self.changes.targets | (self.round_trip.names if self.round_trip else frozenset())

    def check_files(self) -> tuple[dict[str, str], list[dict[str, str]]]:
        """Hash the files of the base and of each adapter, name -> sha256.

        Raises:
            ModelError: the base is not the one that an adapter was trained on.
        """
        paths = sorted({tensor.path for tensor in self.weights.tensors.values()})
        base = hash_files([self.base / "config.json", *paths])
        for origin in self.origins:
            check_base(self.base, origin, base)
        return base, [hash_files(sorted(filter(Path.is_file, adapter.folder.iterdir()))) for adapter in self.changes.adapters]

    def key(self, base_files: dict[str, str], adapter_files: list[dict[str, str]]) -> str:
        """A hash of all that the bytes of the output hang on."""
        options = self.options.model_dump(exclude={"verify"}) | {"shard_size": self.options.shard_bytes}
        return sha256_json([base_files, list(zip(self.changes.weights, adapter_files, strict=True)), options, self.format_reference,
                            __version__, version("torch")])


def open_job(base: Path, adapters: Sequence[Path], weights: Sequence[float] | None, options: MergeOptions,
             prompt_format: str | dict[str, Any] | None, stack: ExitStack) -> MergeJob:
    """Open base and adapters, which `stack` closes, and check that they fit. No weight of the base is read.

    Raises:
        ModelError: base or adapters cannot be merged as asked; the message names the file or tensor.
    """
    if weights and len(weights) != len(adapters):
        raise ModelError(f"{len(weights)} weights for {len(adapters)} adapters; give one --weight for each --adapter, in their order, or "
                         "none")
    config = read_model_config(base)
    reader = stack.enter_context(open_model(base))
    _refuse_quantised(base, config, reader)
    changes = Changes([stack.enter_context(LoraAdapter(folder)) for folder in adapters], weights)
    plan = plan_merge(reader, changes, config)
    changes.fit(plan.tensors, config)
    origins = tuple(read_origin(folder) for folder in adapters)
    tokenizer = _tokenizer_folder(base, adapters, plan)
    known = load_format(tokenizer, prompt_format or next((origin.format for origin in origins if origin.format), None))
    job = MergeJob(base, config, reader, changes, plan, origins, options, tokenizer, known)
    if options.onto == "quantised" and job.quantization is None:
        raise ModelError(_no_quantised_base(adapters, origins))
    if options.onto == "quantised":
        assert job.round_trip
    return job


def _no_quantised_base(adapters: Sequence[Path], origins: Sequence[AdapterOrigin]) -> str:
    said = ", ".join(f"{folder}: " + ("no mft.json that says it" if origin.quantization is None else str(origin.quantization.model_dump()))
                     for folder, origin in zip(adapters, origins, strict=True))
    return (f"onto quantised needs adapters that were trained on one and the same NF4 base ({said}); merge onto original, or write "
            '"quantization": {"type": "nf4", "double_quant": true, "compute_dtype": "bf16"} as it was into mft.json')


def _refuse_quantised(base: Path, config: dict[str, Any], weights: SafetensorsReader) -> None:
    method = (config.get("quantization_config") or {}).get("quant_method", "an unknown method")
    packed = [tensor for tensor in weights.tensors.values() if not tensor.is_floating]
    if "quantization_config" in config and packed:
        raise ModelError(f"{base}: is quantised ({method}; '{packed[0].name}' is {packed[0].dtype}); merge onto the original weights")


def _tokenizer_folder(base: Path, adapters: Sequence[Path], plan: MergePlan) -> Path:
    """Where the tokenizer lies: beside an adapter that brought another number of tokens, if it has one."""
    if not plan.resized:
        return base
    folder = next((folder for folder in adapters if (folder / "tokenizer.json").is_file()), None)
    if folder is None:
        logger.warning("the adapter brings %d rows of the embedding but no tokenizer.json; the base's tokenizer is taken",
                       plan.config["vocab_size"])
    return folder or base
