"""Where a base model lies on this machine, and what its config says. Torch is not needed here."""

import json
from pathlib import Path
from typing import Any

from mft.errors import ModelError
from mft.modeling.known_bases import KNOWN

ASSETS = Path(__file__).resolve().parent.parent / "assets"
BUILT_IN = {"tiny-code-llama": ASSETS / "tiny-code-llama"}
"""Base models that come with mft."""


def resolve_base(name: str, beside: Path | None = None, *, fetch: bool = True) -> Path:
    """The folder of a base model: a built-in name, a folder (also relative to `beside`), or a hub id.

    `fetch`: ask the hub for what is not on this machine.

    Raises:
        ModelError: no such folder, and the hub cannot give it either.
    """
    if name in BUILT_IN:
        folder = BUILT_IN[name]
        if not (folder / "config.json").is_file():
            raise ModelError(f"{name}: the built-in base is not in this installation ({folder})")
        return folder
    for path in (Path(name), *([beside / name] if beside else [])):
        if path.is_dir():
            if not (path / "config.json").is_file():
                raise ModelError(f"{path}: has no config.json, so it is no model folder")
            return path.resolve()
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise ModelError(f"{name}: no such folder; built-in bases: {', '.join(BUILT_IN)}; a hub id is written owner/name")
    return _from_hub(name, fetch)


def config_of_base(name: str, beside: Path | None = None, *, fetch: bool = True) -> tuple[dict[str, Any], str]:
    """What config.json of a base says, without fetching its weights, and where that was found.

    In this order: a built-in base or a folder; the hub's cache on this machine; the list of known bases; the hub, of which config.json
    alone is fetched, unless `fetch` is False.

    Raises:
        ModelError: none of them has it.
    """
    local = name in BUILT_IN or name.count("/") != 1 or name.startswith((".", "/"))
    if local or any(path.is_dir() for path in (Path(name), *([beside / name] if beside else []))):
        folder = resolve_base(name, beside)
        return read_model_config(folder), str(folder)
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json")
    if isinstance(cached, str):
        return read_model_config(Path(cached).parent), cached
    if name in KNOWN:
        return dict(KNOWN[name]), "sizes that mft knows by this name; the base itself is not on this machine"
    if not fetch:
        raise ModelError(f"{name}: neither the base nor its config.json is on this machine; known without them: {', '.join(KNOWN)}")
    return _config_from_hub(name), "config.json fetched from the hub"


def _config_from_hub(name: str) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return read_model_config(Path(hf_hub_download(name, "config.json")).parent)
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ModelError(f"{name}: not a folder here, not in the hub's cache, and the hub did not give its config.json "
                         f"({str(error).splitlines()[0]}); known without it: {', '.join(KNOWN)}") from error


def base_files(base: Path) -> list[Path]:
    """config.json and every weights file of a base."""
    return sorted([base / "config.json", *base.glob("*.safetensors")])


def lasting_name(name: str, folder: Path) -> str:
    """What to write down so that a base is found again from anywhere: its built-in name, its hub id, or its absolute folder."""
    return name if name in BUILT_IN or folder.parent.name == "snapshots" else str(folder.resolve())


def _from_hub(name: str, fetch: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model"], local_files_only=not fetch))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{name}: not a folder here, and the model hub did not give it ({reason})") from error


def read_model_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a model folder.

    Raises:
        ModelError: missing or not JSON.
    """
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: has no config.json, so it is no model folder") from error
    except ValueError as error:
        raise ModelError(f"{folder / 'config.json'}: not valid JSON: {error}") from error
    return config


def check_context(folder: Path, context: int) -> None:
    """Refuse rows longer than the base was made for.

    Raises:
        ModelError: `context` is above `max_position_embeddings`.
    """
    longest = read_model_config(folder).get("max_position_embeddings")
    if longest is not None and context > longest:
        raise ModelError(
            f"model.context is {context}, but {folder.name} was made for at most {longest} tokens (max_position_embeddings)")
