"""What the files of a run say about a model, read for its card. Nothing is computed or guessed; what is absent stays None."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from mft.errors import DataError
from mft.files import MANIFEST
from mft.reading import read_object

RUN, CONFIG, FACTS = "run.json", "config.yaml", "mft.json"
ADAPTER, MERGE, GPTQ = "adapter_config.json", "merge.json", "quantize_config.json"
Kind = Literal["adapter", "merged", "quantized", "model"]


@dataclass(frozen=True, slots=True)
class RunRecords:
    """A project's `config.yaml` and the entries of its `run.json`, in order; empty where there is no run."""

    config: dict[str, Any] = field(default_factory=dict)
    stages: tuple[dict[str, Any], ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    name: str | None = None

    def results(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and result of every stage of a kind that has been run."""
        yield from ((stage["name"], stage.get("result") or {}) for stage in self.stages if stage.get("kind") == kind)

    def settings(self, name: str | None) -> dict[str, Any]:
        """What the config says of a stage; empty for none."""
        return next((stage for stage in self.config.get("stages") or [] if stage.get("name") == name), {})

    def ancestors(self, name: str | None) -> list[str]:
        """A stage and those that its weights come from, the stage first."""
        found: list[str] = []
        while name and name not in found and (own := self.settings(name)):
            found.append(name)
            name = own.get("adapter") if isinstance(own.get("adapter"), str) else own.get("model") or own.get("init_from")
        return found


def read_run_records(folder: Path) -> RunRecords:
    """The records of a project's output folder.

    Raises:
        DataError: it has no `run.json` of a project, or a file is broken.
    """
    run = read_object(folder / RUN, missing_ok=True)
    if not isinstance(run.get("stages"), list):
        raise DataError(f"{folder}: has no {RUN} with stages, so it is no output folder of `mft run` or `mft train`")
    try:
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8")) if (folder / CONFIG).is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{folder / CONFIG}: is not YAML: {str(error).splitlines()[0]}") from error
    return RunRecords(config if isinstance(config, dict) else {}, tuple(run["stages"]), dict(run.get("versions") or {}), run.get("name"))


@dataclass(frozen=True, slots=True)
class ModelRecords:
    """What the files of a model folder say: its kind, base and prompt format, and the objects in its JSON files ({} where absent)."""

    folder: Path
    kind: Kind
    base: str | None
    format: str | dict[str, Any] | None
    config: dict[str, Any]
    adapter: dict[str, Any]
    merge: dict[str, Any]
    quantization: dict[str, Any]
    manifest: dict[str, Any]
    facts: dict[str, Any]


def read_model_records(folder: Path, manifest: dict[str, Any] | None = None) -> ModelRecords:
    """The records of a model or adapter folder; `manifest`: what its manifest will say, of a folder that is still being made.

    Raises:
        DataError: it is neither, or one of its files is broken.
    """
    found = {name: read_object(folder / name, missing_ok=True) for name in ("config.json", ADAPTER, MERGE, GPTQ, MANIFEST, FACTS)}
    if not found["config.json"] and not found[ADAPTER]:
        raise DataError(f"{folder}: is neither a model folder (config.json) nor an adapter folder ({ADAPTER})")
    manifest = manifest or found[MANIFEST]
    quantization = found[GPTQ] or found["config.json"].get("quantization_config") or {}
    kind: Kind = "adapter" if found[ADAPTER] else "quantized" if quantization else "merged" if found[MERGE] else "model"
    facts = found[FACTS]
    made_from = manifest.get("made_from") or {}
    base = facts.get("base") or manifest.get("base") or made_from.get("base") or found[ADAPTER].get("base_model_name_or_path")
    return ModelRecords(folder, kind, base, facts.get("format") or manifest.get("format") or None, found["config.json"], found[ADAPTER],
                        found[MERGE], quantization, manifest, facts)
