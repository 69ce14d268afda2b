"""LLaMA-Factory's data sets: names of a dataset_info.json, as tasks of a recipe."""

import json
from pathlib import Path
from typing import Any, Final

from mft.errors import ConfigError
from mft.runs.importing.draft import Draft
from mft.runs.importing.recipes import FILE_TYPES, add_task, file_type, local_path, map_validation, source_key

REGISTRY: Final = "dataset_info.json"
OUR_TAGS: Final = {"user_tag": {"human", "user"}, "assistant_tag": {"gpt", "assistant", "bot"}, "system_tag": {"system"}}
"""Role tags that converters understand whatever the file says."""


def map_data(draft: Draft, registry: Path | None, stage: str) -> float:
    """One task for each data set; returns the share that is held out."""
    source = draft.source
    names = source.words("dataset") or []
    if not names:
        draft.note("The file names no dataset: the recipe holds a placeholder.")
    entries = _registry(draft, registry)
    folder = source.text("dataset_dir") or "data"
    tasks = []
    for name in names or ["$DATASET"]:
        entry = entries.get(name) if entries is not None else None
        if entries is not None and entry is None and names:
            draft.note(f"{name} is not in {REGISTRY}: its source is a placeholder.")
        tasks.append(_add(draft, name, entry, folder, stage))
    if source.has("dataset"):
        draft.map("dataset", "recipe:tasks", tasks, write=False)
    for key in ("dataset_dir",):
        if source.has(key):
            draft.map(key, source_key(tasks[0], "path"), folder, write=False) if entries is not None else draft.drop(
                key, f"{folder}/{REGISTRY} was not found: give it by --dataset-info FILE")
    _amounts(draft, tasks)
    _which_answers(draft, tasks)
    return map_validation(draft, "val_size")


def _registry(draft: Draft, path: Path | None) -> dict[str, Any] | None:
    """dataset_info.json; None where it is not found.

    Raises:
        ConfigError: it was named and cannot be read.
    """
    source = draft.source
    found = path or source.find(f"{source.text('dataset_dir') or 'data'}/{REGISTRY}")
    if found is None:
        draft.note(f"{REGISTRY} was not found, so the sources of the recipe are placeholders: give it by --dataset-info FILE, or fill in "
                   "type, path and converter of each.")
        return None
    try:
        entries = json.loads(found.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError([f"{found}: cannot be read as JSON: {error}"]) from error
    if not isinstance(entries, dict):
        raise ConfigError([f"{found}: expected an object with one entry for each data set"])
    return entries


def _add(draft: Draft, name: str, entry: dict[str, Any] | None, folder: str, stage: str) -> str:
    """Put the task of one data set into the recipe; returns its name."""
    entry = entry if isinstance(entry, dict) else {}
    where = _where(draft, name, entry, folder)
    converter = _converter(draft, name, entry, stage)
    rows = entry.get("num_samples")
    steps = [{"type": "sample", "rows": rows}] if isinstance(rows, int) and rows > 0 else []
    return add_task(draft, name, {**where, **({"converter": converter} if converter else {})}, steps)


def _where(draft: Draft, name: str, entry: dict[str, Any], folder: str) -> dict[str, Any]:
    if isinstance(hub := entry.get("hf_hub_url"), str):
        subset = {"config": entry["subset"]} if entry.get("subset") else {}
        return {"type": "hub", "name": hub, **subset, "split": entry.get("split") or "train"}
    if isinstance(hub := entry.get("ms_hub_url"), str):
        draft.note(f"{name}: the files of a ModelScope data set are named here: its glob is a guess.")
        return {"type": "modelscope", "name": hub, "files": "**/*.jsonl"}
    file = entry.get("file_name")
    if not isinstance(file, str):
        if entry:
            by = ", ".join(key for key in ("script_url", "cloud_file_name", "om_hub_url") if key in entry) or "none of the known keys"
            draft.note(f"{name}: loaded by {by}, which recipes do not offer: its source is a placeholder.")
        return {"type": "jsonl", "path": f"{folder}/{name}.jsonl" if not folder.startswith("REMOTE:") else f"{name}.jsonl"}
    kind = file_type(file)
    if kind is None:
        draft.note(f"{name}: {file} is a folder or of no known ending ({', '.join(FILE_TYPES)}): read as JSON lines.")
        return {"type": "jsonl", "path": f"{local_path(draft, f'{folder}/{file}')}/**/*.jsonl"}
    return {"type": kind, "path": local_path(draft, f"{folder}/{file}")}


def _converter(draft: Draft, name: str, entry: dict[str, Any], stage: str) -> str | dict[str, Any] | None:
    """The converter that reads the same columns; None where the entry is not known (`auto`)."""
    columns, tags = _mapping(entry, "columns"), _mapping(entry, "tags")
    if not entry:
        return "text" if stage == "pt" else None
    if entry.get("ranking"):
        draft.note(f"{name}: pairs of answers for preference training: no converter reads them.")
    if extra := sorted({"tools", "images", "videos", "audios"} & columns.keys()):
        draft.note(f"{name}: has {', '.join(extra)}, for which no prompt format has a place: rows with calls or pictures are dropped and "
                   "counted.")
    if stage == "pt":
        column = columns.get("prompt") or "instruction"
        return "text" if column == "text" else {"type": "text", "columns": {"text": column}}
    if entry.get("formatting", "alpaca") == "alpaca":
        return _alpaca(columns if "columns" in entry else None)
    if odd := sorted(key for key, known in OUR_TAGS.items() if tags.get(key) is not None and tags[key] not in known):
        draft.note(f"{name}: names its roles by {', '.join(odd)}: rows with other roles than human, user, gpt, assistant, bot and system "
                   "are dropped and counted.")
    by_role = entry["formatting"] == "openai" or tags.get("role_tag") == "role" or tags.get("content_tag") == "content"
    held = columns.get("messages") or "conversations"
    if by_role:
        return "messages" if held == "messages" else {"type": "messages", "columns": {"messages": held}}
    names = (("conversations", held), ("system", columns.get("system")))
    renamed = {ours: theirs for ours, theirs in names if theirs not in (None, ours)}
    return {"type": "sharegpt", "columns": renamed} if renamed else "sharegpt"


def _mapping(entry: dict[str, Any], key: str) -> dict[str, Any]:
    value = entry.get(key)
    return value if isinstance(value, dict) else {}


def _alpaca(columns: dict[str, Any] | None) -> str | dict[str, Any]:
    """Instruction, input and output; where the file lists columns, those that it does not list are not read."""
    if columns is None:
        return "alpaca"
    names = {"instruction": "prompt", "input": "query", "output": "response", "system": "system", "history": "history"}
    given = {ours: columns[theirs] for ours, theirs in names.items() if columns.get(theirs)}
    if {"instruction", "output"} <= given.keys() <= {"instruction", "output", "system"}:
        pairs = {"prompt": given["instruction"], "answer": given["output"], "system": given.get("system", "system")}
        return {"type": "pairs", "columns": {ours: theirs for ours, theirs in pairs.items() if ours != theirs or ours != "system"}}
    renamed = {ours: theirs for ours, theirs in given.items() if ours != theirs}
    return {"type": "alpaca", "columns": renamed} if renamed else "alpaca"


def _amounts(draft: Draft, tasks: list[str]) -> None:
    """How many rows of each data set, and how they are mixed."""
    source = draft.source
    limit = source.whole("max_samples")
    if limit and limit > 0:
        for name in tasks:
            task = draft.recipe["tasks"][name]
            task["steps"] = [*task.get("steps", []), {"type": "sample", "rows": limit}]
        draft.map("max_samples", "recipe:tasks.*.steps", {"type": "sample", "rows": limit}, write=False)
        draft.note("max_samples takes the first rows of each data set; the recipe takes as many, chosen by hash.")
    strategy, shares = source.text("mix_strategy") or "concat", source.words("interleave_probs")
    if strategy == "concat":
        for key in ("mix_strategy", "interleave_probs"):
            if source.has(key):
                draft.ignore(key, "data sets are put one after the other and shuffled, as here")
        return
    try:
        weights = [float(share) for share in shares or ["1"] * len(tasks)]
    except ValueError:
        weights = []
    if len(weights) != len(tasks) or min(weights, default=0) <= 0:
        draft.source.refuse(("interleave_probs",), f"expected {len(tasks)} numbers above 0, one for each dataset")
        return
    rounds = 1 if strategy == "interleave_under" else 10
    draft.recipe["mixture"] = {"type": "weights", "weights": dict(zip(tasks, weights, strict=True)), "max_epochs": rounds}
    draft.map("mix_strategy", "recipe:mixture.max_epochs", rounds, write=False)
    if shares:
        draft.map("interleave_probs", "recipe:mixture.weights", draft.recipe["mixture"]["weights"], write=False)
    if rounds > 1:
        draft.note(f"{strategy} repeats small data sets until the large ones are used up; the recipe repeats a row {rounds} times at most.")


def _which_answers(draft: Draft, tasks: list[str]) -> None:
    if draft.source.flag("mask_history"):
        for name in tasks:
            draft.recipe["tasks"][name]["sources"][0]["train"] = "last"
        draft.map("mask_history", "recipe:tasks.*.sources.0.train", "last", write=False)
