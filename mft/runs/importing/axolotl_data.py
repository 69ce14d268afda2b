"""axolotl's data sets, as tasks of a recipe, and the prompt format that follows from their types."""

import re
from dataclasses import dataclass
from typing import Any, Final

from mft.conversation import ROLE_ALIASES
from mft.runs.importing.draft import Draft
from mft.runs.importing.layouts import ALPACA_NEWLINE, AXOLOTL, instruction_template
from mft.runs.importing.recipes import add_task, file_type, local_path, map_validation, source_key

PREAMBLE: Final = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
PART: Final = re.compile(r"(?P<split>[\w.]+)\[:(?P<amount>\d+)(?P<percent>%?)\]")
HUB_NAME: Final = re.compile(r"[\w.-]+(/[\w.-]+)?")
DS_TYPES: Final = {"json": "jsonl", "parquet": "parquet", "csv": "csv", "text": "lines"}
ENDINGS: Final = {"jsonl": "jsonl", "json": "json", "parquet": "parquet", "csv": "csv", "lines": "txt"}
FAMILIES: Final = ("chat_template", "sharegpt", "completion", "pretrain", "template", "alpaca")
MESSAGE_KEYS: Final = ("type", "field_messages", "message_property_mappings", "message_field_role", "message_field_content",
                       "chat_template", "message_field_training", "message_field_training_detail")


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows lie: a source without its converter, steps that choose among them, key of the file -> key of the source."""

    source: dict[str, Any]
    steps: list[dict[str, Any]]
    origins: dict[str, str]


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows are read: the converter (None: auto), and the keys of the file that it was made from."""

    converter: Any
    origins: tuple[str, ...]


def map_data(draft: Draft) -> float:
    """One task for each data set; returns the share that is held out."""
    source = draft.source
    key = "datasets" if source.at("datasets") else "pretraining_dataset"
    given = source.at(key)
    listed = given if isinstance(given, list) else [given] if given else []
    entries = [entry if isinstance(entry, dict) else {"path": str(entry)} for entry in listed]
    if not entries or not isinstance(given, list | dict | str):
        source.refuse((key,) if source.has(key) else (), "datasets is required: a list with path and type of each")
        return 0
    if key == "pretraining_dataset":
        draft.note("A recipe is built whole before training starts: of a data set that was streamed, name files or a smaller split.")
    kinds = ["completion" if key == "pretraining_dataset" else _kind(entry) for entry in entries]
    for index, (entry, kind) in enumerate(zip(entries, kinds, strict=True)):
        _add(draft, (key, index) if isinstance(given, list) else (key,), entry, kind)
    _format(draft, kinds[0], entries[0])
    if len({_family(kind) for kind in kinds}) > 1:
        draft.note("The data sets have different types, each with a prompt of its own there; here all rows have that of model.format, "
                   "which is the first one's.")
    return map_validation(draft, "val_set_size")


def _kind(entry: dict[str, Any]) -> str:
    given = entry.get("type")
    return "template" if isinstance(given, dict) else str(given or "")


def _family(kind: str) -> str:
    return kind.partition(".")[0].partition(":")[0]


def _add(draft: Draft, path: tuple[str | int, ...], entry: dict[str, Any], kind: str) -> None:
    """Put one data set into the recipe, and each of its keys into a list."""
    place, reading = _place(draft, entry), _reading(entry, kind)
    name = add_task(draft, str(entry.get("path", "data")).rstrip("/").rpartition("/")[2].partition(".json")[0],
                    {**place.source, **({"converter": reading.converter} if reading.converter else {})}, place.steps)
    if not isinstance(draft.source.at(*path), dict):
        whole = path if any(isinstance(other, dict) for other in draft.source.at(path[0])) else path[:1]
        if not draft.claimed(whole):
            draft.map(whole, source_key(name, "path"), entry["path"], write=False)
        return
    ours = {**{theirs: (mine, place.source.get(mine, place.steps)) for theirs, mine in place.origins.items()},
            **dict.fromkeys(reading.origins, ("converter", reading.converter or "auto"))}
    dropped = _dropped(entry, kind)
    for key, value in entry.items():
        inner = (*path, key)
        if value is None:
            draft.ignore(inner, "not set")
        elif key in ours and key not in dropped:
            draft.map(inner, source_key(name, ours[key][0]), ours[key][1], write=False)
        elif key in dropped:
            draft.settle(inner, dropped[key])
        elif key in ("ds_type", "trust_remote_code"):
            draft.ignore(inner, "the source's type says it")
        elif key in ("roles", "roles_to_train", "train_on_eos", "train_on_eot"):
            _marks(draft, inner, value)


def _place(draft: Draft, entry: dict[str, Any]) -> Place:
    path = str(entry.get("path") or "data.jsonl")
    files = entry.get("data_files")
    name = files[0] if isinstance(files, list) and len(files) == 1 else files
    split, steps = _part(str(entry.get("split") or "train"))
    if path in DS_TYPES and isinstance(name, str):
        return Place({"type": file_type(name) or DS_TYPES[path], "path": local_path(draft, name)}, steps,
                     {"path": "type", "data_files": "path", "split": "path"})
    on_disk = path.count("/") == 0 and draft.source.find(path) is not None
    if file_type(path) or path.startswith((".", "/", "~")) or on_disk or not HUB_NAME.fullmatch(path):
        kind = file_type(path) or DS_TYPES.get(str(entry.get("ds_type")), "jsonl")
        local = local_path(draft, path)
        if not file_type(path) and (on_disk or path.startswith((".", "/", "~"))):
            local = f"{local.rstrip('/')}/**/*.{ENDINGS[kind]}"
        return Place({"type": kind, "path": local}, steps, {"path": "path", "split": "path"})
    if not re.fullmatch(r"[\w.-]+", split):
        draft.note(f"{path}: split {split} is more than a recipe can say: train is read.")
        split = "train"
    subset = {"config": str(entry["name"])} if entry.get("name") else {}
    pinned = {"revision": str(entry["revision"])} if entry.get("revision") else {}
    return Place({"type": "hub", "name": path, **subset, "split": split, **pinned}, steps,
                 {"path": "name", "name": "config", "split": "split", "revision": "revision"})


def _part(split: str) -> tuple[str, list[dict[str, Any]]]:
    """A split as `datasets` writes it, as a name and a step that takes as many rows.

    >>> _part("train[:20%]")
    ('train', [{'type': 'sample', 'fraction': 0.2}])
    """
    part = PART.fullmatch(split)
    if part is None:
        return split, []
    amount = int(part["amount"])
    if not part["percent"]:
        return part["split"], [{"type": "sample", "rows": amount}] if amount else []
    return part["split"], [{"type": "sample", "fraction": amount / 100}] if 0 < amount < 100 else []


def _dropped(entry: dict[str, Any], kind: str) -> dict[str, str]:
    """Keys of a data set without counterpart -> why."""
    dropped = {"field_thinking": "reasoning is read where it is part of the content", "template_thinking_key": "see field_thinking",
               "field_tools": "calls of tools have no place in a prompt format", "drop_system_message": "system messages stay",
               "chat_template_jinja": "the tokenizer's own template is used (format: jinja)", "shards": "see split",
               "split_thinking": "reasoning is read where it is part of the content"}
    if str(entry.get("path")) not in DS_TYPES or isinstance(entry.get("data_files"), dict):
        dropped["data_files"] = "a hub source reads a whole split; download the files and name them by path"
    if _family(kind) == "chat_template" and _message_keys(entry) not in (("role", "content"), ("from", "value")):
        why = "converters read messages with role and content, or from and value; rename these keys in the data"
        dropped.update(dict.fromkeys(("message_property_mappings", "message_field_role", "message_field_content"), why))
    if _family(kind) not in FAMILIES:
        dropped["type"] = "rows are read by their keys (converter: auto); name a converter, or write its templates (type: fields)"
    return dropped


def _reading(entry: dict[str, Any], kind: str) -> Reading:
    family = _family(kind)
    if family == "chat_template":
        return _messages(entry)
    if family == "sharegpt":
        return Reading(_renamed("sharegpt", "conversations", entry.get("field_messages")), ("type", "field_messages", "conversation"))
    if family in ("completion", "pretrain"):
        return Reading(_renamed("text", "text", entry.get("field") or entry.get("text_column")), ("type", "field", "text_column"))
    if family == "template":
        fields = {ours: entry["type"].get(f"field_{ours}") for ours in ("instruction", "input", "output", "system")}
        columns = {ours: str(theirs) for ours, theirs in fields.items() if theirs not in (None, "", ours)}
        return Reading({"type": "alpaca", "columns": columns} if columns else "alpaca", ("type",))
    return Reading("alpaca", ("type",)) if family == "alpaca" else Reading(None, ())


def _renamed(converter: str, ours: str, theirs: Any) -> Any:
    """A converter by name, or with its column renamed."""
    return converter if theirs in (None, "", ours) else {"type": converter, "columns": {ours: str(theirs)}}


def _message_keys(entry: dict[str, Any]) -> tuple[str, str]:
    given = entry.get("message_property_mappings")
    names: dict[str, Any] = given if isinstance(given, dict) else {}
    return (str(names.get("role") or entry.get("message_field_role") or "role"),
            str(names.get("content") or entry.get("message_field_content") or "content"))


def _messages(entry: dict[str, Any]) -> Reading:
    """Lists of messages, by the names that role and content have in them."""
    held = entry.get("field_messages") or "messages"
    by_from = _message_keys(entry) == ("from", "value")
    return Reading(_renamed("sharegpt", "conversations", held) if by_from else _renamed("messages", "messages", held), MESSAGE_KEYS)


def _marks(draft: Draft, path: tuple[str | int, ...], value: Any) -> None:
    """Names of roles, and which of them train."""
    key = path[-1]
    if key == "roles":
        names = [alias for aliases in value.values() for alias in (aliases if isinstance(aliases, list) else [aliases])] \
            if isinstance(value, dict) else []
        if names and all(str(name).lower() in ROLE_ALIASES for name in names):
            draft.ignore(path, "these names are understood")
        else:
            draft.drop(path, f"roles have the names {', '.join(ROLE_ALIASES)}; rows with others are dropped and counted")
    elif key == "roles_to_train":
        roles = {ROLE_ALIASES.get(str(name).lower()) for name in value} if isinstance(value, list) else set()
        if roles == {"assistant"}:
            draft.ignore(path, "answers are trained, as here")
        else:
            draft.drop(path, "answers alone are trained; mark single ones by `train: false` in the rows")
    elif value == "turn":
        draft.ignore(path, "each answer's end mark is trained, as here")
    else:
        draft.drop(path, f"{value}: here the end mark of every trained answer is trained")


def _format(draft: Draft, kind: str, entry: dict[str, Any]) -> None:
    """The prompt format: that of the first data set."""
    source = draft.source
    family, variant = re.split(r"[.:]", f"{kind}:")[:2]
    template = str(entry.get("chat_template") or source.text("chat_template") or "tokenizer_default")
    key = "chat_template" if source.has("chat_template") else None
    chosen: Any = "jinja"
    if family in ("completion", "pretrain"):
        chosen, template = "raw", ""
    elif family == "template":
        given = entry["type"]
        chosen = instruction_template(given.get("format"), given.get("no_input_format"), str(given.get("system_prompt") or ""))
        if chosen is None or given.get("system_format") not in (None, "{system}", ""):
            chosen = chosen or ALPACA_NEWLINE
            draft.note("The template of the first data set does not fit one format: write it as a format of your own (model.format), and "
                       "compare a row by `mft data show`.")
    elif family == "alpaca":
        chosen = _alpaca(draft, variant, template)
    elif family in ("chat_template", "sharegpt"):
        template = "chatml" if entry.get("conversation") == "chatml" else template
        chosen = AXOLOTL.get(template, "jinja")
        if chosen == "jinja" and template != "tokenizer_default":
            draft.note(f"chat_template {template} became jinja, the tokenizer's own: it must have one, and be the same; compare a row by "
                       "`mft data show`.")
    if key and family in ("chat_template", "sharegpt"):
        draft.map(key, "model.format", chosen)
    else:
        draft.assume("model.format", chosen, f"type: {kind or 'none'} of the first data set")
        if key:
            draft.ignore(key, f"data sets of type {kind} have a prompt of their own")


def _alpaca(draft: Draft, variant: str, template: str) -> Any:
    if variant in ("", "instruct", "load_no_prompt"):
        return ALPACA_NEWLINE
    if variant == "chatml":
        return "chatml"
    if variant == "chat":
        return {"name": "alpaca-chat", "preamble": f"SYSTEM: {PREAMBLE.rstrip()}\n", "user": {"before": "USER: ", "after": "\n"},
                "assistant": {"before": "ASSISTANT:"}, "input": "\n", "bos": True}
    draft.note(f"type alpaca:{variant}: that prompt is not offered: alpaca is written; write it as a format of your own (model.format).")
    return ALPACA_NEWLINE
