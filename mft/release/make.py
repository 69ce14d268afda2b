"""A stage of a run as users download it: weights, config, tokenizer, chat template, model card, hashes; whole or not at all."""

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from mft import __version__, formats
from mft.errors import CheckFailed, DataError, FormatError, OutputError
from mft.files import JOB, MANIFEST, SUMS, atomic_folder, folder_hashes, listed_files, write_json, write_manifest
from mft.hashes import hash_file
from mft.reading import read_object
from mft.release.card import CARD, base_name, write_card
from mft.release.records import ADAPTER, CONFIG, FACTS, RUN, RunRecords, read_model_records, read_run_records
from mft.tokenization.compatibility import format_for
from mft.tokenization.load import load_tokenizer
from mft.tokenization.release import release_generation_config, write_release_tokenizer

logger = logging.getLogger(__name__)

GENERATION = "generation_config.json"
LEFT_BEHIND = frozenset({MANIFEST, *SUMS, JOB, CARD, RUN, CONFIG})
"""Files of a stage that are not released, or are made anew."""
WEIGHTS = (".safetensors", ".gguf", ".bin")
RELEASED_KINDS = ("quantize", "merge", "train")


def release(source: Path, out: Path, *, stage: str | None = None, name: str | None = None, licence: str | None = None,
            format_name: str | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Write `out` from a stage of a run, or from a model or adapter folder; returns `{"path", "name", "stage", "format", "files": [...]}`.

    Weights are hard links to the stage's files where the file system can, so that they take no space twice. Files are compared with the
    hashes that the stage wrote when it made them.

    Raises:
        DataError: `source` is neither, or has no such stage. FormatError: no prompt format is known, and none is given.
        TokenizerError: the tokenizer is missing or cannot be trusted. OutputError: `out` is not empty (unless `overwrite`), or cannot be
        written. CheckFailed: a file of the stage is not as it was made.
    """
    run, folder, stage = _locate(source, stage)
    return release_folder(folder, out, run=run, stage=stage, name=name, licence=licence, format_name=format_name, overwrite=overwrite)


def release_folder(folder: Path, out: Path, *, run: RunRecords, stage: str | None = None, name: str | None = None,
                   licence: str | None = None, format_name: str | None = None, overwrite: bool = False) -> dict[str, Any]:
    """As `release`, of a model or adapter folder. `run`, `stage`: what its card tells, and which stage of it made the folder."""
    if folder.resolve().is_relative_to(out.resolve()) or out.resolve().is_relative_to(folder.resolve()):
        raise OutputError(f"{out}: is, holds or lies in the folder to be released; give another --out")
    model = read_model_records(folder)
    reference = _format_of(folder, format_name, model.format)
    tokenizer = load_tokenizer(folder)
    prompt_format = format_for(reference, tokenizer)
    title = name or out.resolve().name
    with atomic_folder(out, replace=overwrite) as partial:
        _take_files(folder, partial)
        given = read_object(folder / GENERATION, missing_ok=True)
        _refuse_changed(folder, taken := folder_hashes(partial))
        write_release_tokenizer(tokenizer, prompt_format, partial)
        write_json(partial / GENERATION, release_generation_config(given, tokenizer, prompt_format))
        _write_facts(partial, prompt_format.reference)
        hashes = _renewed(partial, taken)
        write_card(replace(model, folder=partial, format=prompt_format.reference), name=title, run=run, stage=stage,
                   licence=licence or _licence_of_base(run, model.base), hashes=hashes)
        kept = {key: value for key, value in model.manifest.items() if key not in ("files", "made_by", "format")}
        manifest = write_manifest(partial, {"made_by": "mft release", "mft": __version__, "format": prompt_format.reference,
                                            "made_from": kept}, sums=True, known=hashes)
    logger.info("released %s: %d files", out, len(manifest["files"]))
    return {"path": str(out), "name": title, "stage": stage, "format": prompt_format.reference,
            "files": [{"path": file, **facts} for file, facts in manifest["files"].items()]}


def _locate(source: Path, stage: str | None) -> tuple[RunRecords, Path, str | None]:
    """The run's records, the folder to release and its stage; a folder outside a run has neither records nor a stage."""
    if not source.is_dir():
        raise DataError(f"{source}: no such folder")
    if "stages" not in read_object(source / RUN, missing_ok=True):
        if stage is not None:
            raise DataError(f"{source}: has no {RUN} with stages, so --stage {stage} names nothing; give the output folder of `mft run`")
        return RunRecords(), source, None
    run = read_run_records(source)
    done = {entry["name"]: entry["kind"] for entry in run.stages if entry.get("kind") in RELEASED_KINDS}
    if stage is None:
        stage = next((name for kind in ("merge", "train") for name in reversed(done) if done[name] == kind), None)
    if stage is None or stage.split("/")[0] not in done:
        raise DataError(f"{source}: has no stage '{stage or 'merged'}' with a model; stages with one: {', '.join(done) or 'none'}")
    folder = source / stage
    if done.get(stage) == "train":
        folder /= "adapter"
    if not folder.is_dir():
        raise DataError(f"{folder}: is not there; run the stage again")
    if done[stage.split("/")[0]] == "quantize" and not (folder / "config.json").is_file():
        jobs = sorted(path.parent.name for path in folder.glob("*/config.json"))
        named = ", ".join(f"--stage {stage}/{job}" for job in jobs)
        raise DataError(f"{folder}: holds several models; name one: {named or 'none is there'}")
    return run, folder, stage.split("/")[0]


def _format_of(folder: Path, given: str | None, own: str | dict[str, Any] | None) -> str | dict[str, Any]:
    if given is None and own is None:
        raise FormatError(f"{folder}: does not say which prompt format it was trained with ({FACTS} names none); "
                          f"give --format: {', '.join(formats.names())}")
    if given is not None and own is not None and formats.get_reference(given) != own:
        logger.warning("%s was trained with format %s; %s is released as asked", folder, own, given)
    return formats.get_reference(given) if given is not None else own or ""


def _take_files(folder: Path, partial: Path) -> None:
    """Weights by hard links, everything else as copies, without what is hidden or left behind."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        place = path.relative_to(folder)
        if place.as_posix() in LEFT_BEHIND or any(part.startswith(".") for part in place.parts):
            continue
        target = partial / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in WEIGHTS:
            try:
                os.link(path.resolve(), target)
                continue
            except OSError:     # another file system, or one without hard links
                pass
        shutil.copyfile(path, target)


def _refuse_changed(folder: Path, found: dict[str, dict[str, Any]]) -> None:
    """Compare what was taken with the manifest of the stage, where it has one."""
    wanted = (read_object(folder / MANIFEST, missing_ok=True).get("files") or {}).items()
    faults = [f"{folder / name}: " + ("missing" if name not in found else "changed since the stage was made") for name, facts in wanted
              if name not in LEFT_BEHIND and (name not in found or found[name]["sha256"] != facts.get("sha256"))]
    if faults:
        raise CheckFailed("\n".join(faults))


def _write_facts(partial: Path, reference: str | dict[str, Any]) -> None:
    """`mft.json` with the format, and no path of this machine in it or in PEFT's config."""
    for name, key in ((FACTS, "base"), (ADAPTER, "base_model_name_or_path")):
        values = read_object(partial / name, missing_ok=True) | ({"format": reference} if name == FACTS else {})
        if not values:
            continue
        base = values.get(key)
        if name == ADAPTER:
            base = read_object(partial / FACTS, missing_ok=True).get("base") or base
        write_json(partial / name, values | ({key: base_name(base)} if base else {}))


def _renewed(partial: Path, taken: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Hashes of the files as they are now; weights have not changed since they were read."""
    return {name: taken[name] if Path(name).suffix in WEIGHTS else hash_file(partial / name) for name in listed_files(partial)}


def _licence_of_base(run: RunRecords, base: str | None) -> str | None:
    """What the card of the base's own folder states, where the base is a folder here."""
    import yaml

    card = Path(run.config.get("model", {}).get("base") or base or "") / CARD
    if not base or not card.is_file():
        return None
    parts = card.read_text(encoding="utf-8", errors="replace").split("---\n")
    try:
        metadata = yaml.safe_load(parts[1]) if len(parts) > 2 and not parts[0] else None
    except yaml.YAMLError:
        return None
    stated = metadata.get("license") if isinstance(metadata, dict) else None
    return str(stated) if stated else None

