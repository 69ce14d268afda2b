"""`model.add_tokens`: a base with control tokens that its vocabulary lacks, made once as a folder of its own.

    out/.base/4f0c.../   tokenizer.json, config.json   with the new tokens at the next free ids
                         the weights file(s) of embedding and head, with rows for them (mft/modeling/new_rows.py)
                         all other weights             hard links to the base's files (else symbolic links, else copies)
                         manifest.json                 what it was made of: the base's folder, the tokens and their ids

Encoding, training, merging and scoring take this folder as the base. Training changes the new rows alone (or all, with
`adapter.type: full`). An adapter's `mft.json` names base and tokens, from which the folder is made again wherever it is missing.
"""

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mft.errors import ModelError
from mft.files import MANIFEST, atomic_folder, locked, read_json, write_json, write_manifest, write_text
from mft.hashes import hash_file, sha256_json
from mft.modeling.base import read_model_config

if TYPE_CHECKING:
    from mft.modeling.new_rows import NewRows
    from mft.tokenization.load import TextTokenizer

logger = logging.getLogger(__name__)

STORE = ".base"
"""Folder in a project's output that holds its extended base."""
INDEX = "model.safetensors.index.json"
CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
COPIED = ("special_tokens_map.json", "generation_config.json", "chat_template.jinja", "golden_ids.json")
"""Files that go along unchanged. `tokenizer.model` and `vocab.json` do not: they would say nothing of the new tokens."""
KEY = "added_tokens"


@dataclass(frozen=True, slots=True)
class ExtendedBase:
    """What an extended base was made of: the folder of the original one, and the ids of the new tokens, in order."""

    original: Path
    tokens: dict[str, int]


def read_extended(folder: Path) -> ExtendedBase | None:
    """What an extended base was made of; None for any other folder."""
    if not (folder / MANIFEST).is_file():
        return None
    facts = read_json(folder / MANIFEST)
    return ExtendedBase(Path(facts["base"]), facts[KEY]) if isinstance(facts, dict) and KEY in facts else None


def added_tokens(folder: Path) -> dict[str, int]:
    """The tokens that were added to a base, with their ids; none for a base as it came."""
    extended = read_extended(folder)
    return extended.tokens if extended else {}


def original_base(folder: Path) -> Path:
    """The base that a folder was made from by adding tokens; any other folder is its own."""
    extended = read_extended(folder)
    return extended.original if extended else folder


def base_of_adapter(base: Path, adapter: Path) -> Path:
    """The base that an adapter was trained on, given the one that its `mft.json` names: with the tokens that it added, if any.

    The extended base is looked for in the output of the project that the adapter lies in, else kept in the user's cache.

    Raises:
        ModelError: the tokens cannot be added to this base.
    """
    facts = read_json(adapter / "mft.json") if (adapter / "mft.json").is_file() else {}
    tokens = facts.get("add_tokens") or []
    if not tokens:
        return base
    beside = adapter.resolve().parent.parent / STORE
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mft" / "bases"
    return extend_base(base, tokens, beside if beside.is_dir() else cache)


def extend_base(base: Path, tokens: Sequence[str], store: Path) -> Path:
    """The folder in `store` of this base with these control tokens; made if it is not there or the base's files have changed since.

    Of several processes that ask for it at once one makes it. A base that has just these added tokens is returned as it is.

    Raises:
        ModelError: a token is in the vocabulary already; or the weights have no place for rows.
        TokenizerError: the base's tokenizer cannot be trusted.
        OutputError: it cannot be written.
    """
    extended = read_extended(base)
    if extended is not None and list(extended.tokens) == list(tokens):
        return base
    folder = _place(base, tokens, store)
    store.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{folder.name}.lock")):
        stamps = _stamps(base)
        if not _is_whole(folder, stamps):
            logger.info("adding %s to %s", ", ".join(tokens), base)
            _make(base, tokens, folder, stamps)
    return folder


def extended_base(base: Path, tokens: Sequence[str], store: Path) -> Path:
    """As `extend_base`, where nothing may be written.

    Raises:
        ModelError: it has not been made yet.
    """
    extended = read_extended(base)
    if extended is not None and list(extended.tokens) == list(tokens):
        return base
    folder = _place(base, tokens, store)
    if not (folder / MANIFEST).is_file():
        raise ModelError(f"{folder}: {base} with its added tokens is made when the first stage needs it")
    return folder


def _place(base: Path, tokens: Sequence[str], store: Path) -> Path:
    small = {name: hash_file(base / name)["sha256"] for name in (CONFIG, TOKENIZER) if (base / name).is_file()}
    return store.resolve() / sha256_json([str(base.resolve()), small, list(tokens)])[:16]


def _stamps(base: Path) -> dict[str, list[int]]:
    """Size and time of every file that an extended base is made of."""
    names = (CONFIG, TOKENIZER, TOKENIZER_CONFIG, INDEX, *COPIED)
    files = [*(base / name for name in names if (base / name).is_file()), *sorted(base.glob("*.safetensors"))]
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def _is_whole(folder: Path, stamps: dict[str, list[int]]) -> bool:
    """Whether the folder was made from files as they are now, and has all of its own."""
    if read_extended(folder) is None:
        return False
    facts = read_json(folder / MANIFEST)
    return facts["stamps"] == stamps and all((folder / name).is_file() and (folder / name).stat().st_size == file["bytes"]
                                             for name, file in facts["files"].items())


def _make(base: Path, tokens: Sequence[str], folder: Path, stamps: dict[str, list[int]]) -> None:
    from mft.modeling.new_rows import NewRows
    from mft.tokenization.load import load_tokenizer

    tokenizer, config = load_tokenizer(base), read_model_config(base)
    _refuse_known(base, tokens, tokenizer)
    new = NewRows(max(tokenizer.backend.get_vocab().values()) + 1, len(tokens))
    ids = {token: new.first + number for number, token in enumerate(tokens)}
    with atomic_folder(folder, replace=True) as partial:
        rows = _write_weights(base, config, partial, new)
        write_json(partial / CONFIG, config | {"vocab_size": rows})
        _write_tokenizer(base, ids, partial)
        _check_ids(partial, ids, base)
        write_manifest(partial, {"made_by": "mft", "base": str(base.resolve()), KEY: ids, "stamps": stamps})


def _refuse_known(base: Path, tokens: Sequence[str], tokenizer: "TextTokenizer") -> None:
    known = {token: index for token in tokens if (index := tokenizer.backend.token_to_id(token)) is not None}
    if known:
        kinds = [f"'{token}' is {'a control token' if index in tokenizer.control else 'an ordinary piece of text'} already (id {index})"
                 for token, index in known.items()]
        raise ModelError(f"model.add_tokens: {'; '.join(kinds)} in the vocabulary of {base}; "
                         f"{'leave it out' if len(known) == 1 else 'leave them out'}, or choose another name")


def _write_weights(base: Path, config: dict[str, Any], folder: Path, new: "NewRows") -> int:
    """Write the files of embedding and head with new rows, link the others; returns the rows of the embedding."""
    from mft.modeling.new_rows import write_with_rows
    from mft.modeling.safetensors_header import read_header
    from mft.modeling.targets import base_layers

    layers = base_layers(config)
    wanted = [f"{layers.embedding}.weight"] + ([] if layers.tied or layers.head is None else [f"{layers.head}.weight"])
    files = sorted(base.glob("*.safetensors"))
    headers = {file: {tensor.name: tensor for tensor in read_header(file)} for file in files}
    entries = {name: tensor for header in headers.values() for name, tensor in header.items()}
    if lost := [name for name in wanted if name not in entries]:
        raise ModelError(f"model.add_tokens: {base}: has no tensor '{lost[0]}' in .safetensors files, so there is nothing to add rows to")
    if odd := [name for name in (f"{layers.head}.bias", *([f"{layers.head}.weight"] if layers.tied else [])) if name in entries]:
        raise ModelError(f"model.add_tokens: {base}: holds '{odd[0]}', which rows are not added to (a head with a bias, or a tied head "
                         "that is stored beside the embedding)")
    grown = 0
    for file in files:
        if any(name in headers[file] for name in wanted):
            grown += write_with_rows(file, folder / file.name, wanted, new)
        else:
            _link(file, folder / file.name)
    if (base / INDEX).is_file():
        index = read_json(base / INDEX)
        if "total_size" in index.get("metadata", {}):
            index["metadata"]["total_size"] += grown
        write_json(folder / INDEX, index)
    return new.total(entries[wanted[0]].shape[0])


def _link(source: Path, target: Path) -> None:
    """Another name for a file, without its bytes where the file system can."""
    for link in (os.link, os.symlink, shutil.copyfile):
        try:
            link(source.resolve(), target)
        except OSError:
            if link is shutil.copyfile:
                raise
        else:
            return


def _write_tokenizer(base: Path, ids: dict[str, int], folder: Path) -> None:
    entry = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    spec = read_json(base / TOKENIZER)
    spec["added_tokens"] = [*spec.get("added_tokens", []), *({"id": index, "content": token, **entry} for token, index in ids.items())]
    # One line, no spaces: an indented vocabulary is several times the size.
    write_text(folder / TOKENIZER, json.dumps(spec, ensure_ascii=False, separators=(",", ":")))
    if (base / TOKENIZER_CONFIG).is_file():
        config = read_json(base / TOKENIZER_CONFIG)
        if "added_tokens_decoder" in config:
            config["added_tokens_decoder"] |= {str(index): {"content": token, **entry} for token, index in ids.items()}
        write_json(folder / TOKENIZER_CONFIG, config)
    for name in COPIED:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


def _check_ids(folder: Path, ids: dict[str, int], base: Path) -> None:
    """Read the new tokenizer back: the library gives added tokens their ids by rules of its own."""
    from mft.tokenization.load import load_tokenizer

    tokenizer = load_tokenizer(folder)
    wrong = {token: found for token, index in ids.items() if (found := tokenizer.control_id(token)) != index}
    if wrong or [tokenizer.backend.token_to_id(token) for token in ids] != list(ids.values()):
        raise ModelError(f"model.add_tokens: {base}: the tokenizers library gives the new tokens other ids ({wrong}) than the next free "
                         "ones; its vocabulary has gaps")
