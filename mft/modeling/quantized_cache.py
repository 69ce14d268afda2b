"""A base in NF4, kept on disk as bitsandbytes made it: a restart reads a quarter of the bytes and quantises nothing."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel

from mft.errors import OutputError
from mft.files import atomic_folder, locked, read_json, write_json
from mft.hashes import hash_listed, sha256_json
from mft.modeling.base import base_files
from mft.modeling.config import QuantizationConfig
from mft.modeling.stamps import keep_hashes, stamped_hashes

logger = logging.getLogger(__name__)

ENTRY = "entry.json"
LAYOUT = 1
"""Number of what lies in an entry; another one is another entry."""

ALSO_READ = ("generation_config.json", "model.safetensors.index.json")
"""What a loaded model comes from besides config.json and weights."""

LIBRARIES = ("bitsandbytes", "torch", "transformers")
SHARD = "5GB"


@dataclass(frozen=True, slots=True)
class QuantizedCache:
    """`folder`: has an entry for each base and each way in which it is held. `stamps`: where hashes of large files are kept.

    An entry is the base in transformers' own 4-bit layout and `entry.json`: all that decides its bits, whose hash names the entry, and the
    hash of each file.
    """

    folder: Path
    stamps: Path

    def load(self, base: Path, quantization: QuantizationConfig, dtype: torch.dtype, device: torch.device,
             read: Callable[..., PreTrainedModel]) -> PreTrainedModel:
        """The base in NF4, equal to the bit whether it is read from here or quantised, and then kept here.

        Of several processes one quantises and writes; the others wait for it and read. An entry that is damaged is made anew.

        Args:
            read: (folder, quantized=whether its weights are in 4 bits already) -> model.

        Raises:
            OutputError: the folder cannot be written, or there is not enough room.
        """
        facts = self._facts(base, quantization, dtype, device)
        entry = self.folder / sha256_json(facts)[:16]
        if not self._is_whole(entry, facts):
            with self._lock(entry):
                if not self._is_whole(entry, facts):
                    self._tell_why(base, entry, facts)
                    model = read(base)
                    self._write(entry, base, model, facts)
                    return model
        logger.info("%s: in 4 bits from %s", base, entry)
        model = read(entry, quantized=True)
        # Adapters name the base that they belong to by this.
        model.name_or_path = model.config._name_or_path = str(base)
        return model

    def _facts(self, base: Path, quantization: QuantizationConfig, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """All that decides the bits of a quantised base."""
        more = [base / name for name in ALSO_READ if (base / name).is_file()]
        return {"layout": LAYOUT, "files": stamped_hashes([*base_files(base), *more], self.stamps), "type": quantization.type,
                "double_quant": quantization.double_quant, "dtype": str(dtype), "device": _kind_of(device),
                "versions": {name: version(name) for name in LIBRARIES}}

    def _is_whole(self, entry: Path, facts: dict[str, Any]) -> bool:
        """Whether an entry is there as it was written; says what is not."""
        if not entry.exists():
            return False
        fault = self._fault(entry, facts)
        if fault:
            logger.warning("%s: %s; the base is quantised anew", entry, fault)
        return not fault

    def _fault(self, entry: Path, facts: dict[str, Any]) -> str | None:
        try:
            told = read_json(entry / ENTRY)
            known, of = dict(told["files"]), told["facts"]
        except (OSError, ValueError, TypeError, KeyError):
            return f"{ENTRY} is damaged"
        if of != facts:
            return f"{ENTRY} speaks of another base"
        here = {path.name: path for path in entry.iterdir() if path.name != ENTRY}
        if odd := sorted(here.keys() ^ known.keys()):
            return f"{odd[0]} {'is missing' if odd[0] in known else 'does not belong there'}"
        found = stamped_hashes(list(here.values()), self.stamps)
        changed = sorted(name for name, digest in found.items() if digest != known[name])
        return f"{changed[0]} is damaged" if changed else None

    def _tell_why(self, base: Path, entry: Path, facts: dict[str, Any]) -> None:
        """Say that the base is quantised, and which entries of the same folder are of no use to it now, and why."""
        for other in sorted(self.folder.glob(f"*/{ENTRY}")):
            try:
                told = read_json(other)
                before = told["facts"] if told["base"] == str(base.resolve()) else facts
                changed = sorted(key for key in facts if before.get(key) != facts[key])
            except (OSError, ValueError, TypeError, KeyError, AttributeError):
                continue
            if changed and other.parent != entry:
                logger.info("%s: was made with other %s, and is not used", other.parent, ", ".join(changed))
        logger.info("%s: is quantised, and kept in %s", base, entry)

    def _write(self, entry: Path, base: Path, model: PreTrainedModel, facts: dict[str, Any]) -> None:
        needed, free = _bytes_of(model), shutil.disk_usage(self.folder).free
        if needed > free:
            raise OutputError(f"{entry}: the base in 4 bits takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; make room, or "
                              "set model.quantized_cache to a folder on another disk, or to off")
        with atomic_folder(entry, replace=True) as partial:
            try:
                _save(model, base, partial)
            except SafetensorError as error:
                raise OutputError(f"{entry}: cannot be written: {error}") from error
            names = sorted(path.name for path in partial.iterdir())
            hashes = {name: str(each["sha256"]) for name, each in hash_listed(partial, names).items()}
            write_json(partial / ENTRY, {"base": str(base.resolve()), "facts": facts, "files": hashes})
        keep_hashes(entry, hashes, self.stamps)

    def _lock(self, entry: Path) -> Any:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f".{entry.name}.lock").touch()
        except OSError as error:
            raise OutputError(f"model.quantized_cache: {self.folder}: cannot be written: {error.strerror}") from error
        return locked(self.folder / f".{entry.name}.lock")


def _kind_of(device: torch.device) -> str:
    """What computes: kernels of other devices may round otherwise."""
    if device.type == "cuda":
        return "cuda {}.{}".format(*torch.cuda.get_device_capability(device))
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def _bytes_of(model: PreTrainedModel) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _save(model: PreTrainedModel, base: Path, folder: Path) -> None:
    """Write the model in transformers' layout, with the base's own generation_config.json, which may not be one that it would write."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        model.save_pretrained(folder, max_shard_size=SHARD)
    finally:
        model.generation_config = own
    mode = (folder / "config.json").stat().st_mode & 0o777
    for path in folder.iterdir():
        path.chmod(mode)    # safetensors leaves its files to their owner alone
    (folder / "generation_config.json").unlink(missing_ok=True)
    if (base / "generation_config.json").is_file():
        shutil.copyfile(base / "generation_config.json", folder / "generation_config.json")
