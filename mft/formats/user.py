"""Formats that a user writes: from a YAML file, or from what such a file says (kept beside a trained model)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from mft.config.load import parse_config
from mft.errors import FormatError
from mft.formats.alpaca import Alpaca
from mft.formats.base import PromptFormat
from mft.formats.codellama70b import CodeLlama70B
from mft.formats.config import AlpacaSpec, CodeLlama70BSpec, LayoutSpec
from mft.formats.layout import Around, LayoutFormat, layout_of


def read_format(path: Path) -> dict[str, Any]:
    """What a format's YAML says, checked.

    Raises:
        ConfigError: every mistake, with file and line. FormatError: there is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as the YAML of a prompt format: {error}") from error
    return _spec_of(text, str(path)).model_dump(mode="json", exclude_defaults=True)


def make_format(spec: Mapping[str, Any], bos: str, eos: str, control: Mapping[str, str] | None) -> PromptFormat:
    """The format of a spec that `read_format` gave.

    Raises:
        ConfigError: the spec is not valid.
    """
    checked = _spec_of(yaml.safe_dump(dict(spec)), "prompt format")
    made: PromptFormat
    if isinstance(checked, CodeLlama70BSpec):
        made = llama70b = CodeLlama70B(bos, eos, control)
        llama70b.empty_system, llama70b.destination_in_history = checked.empty_system, checked.destination_in_history
    elif isinstance(checked, AlpacaSpec):
        made = alpaca = Alpaca(bos, eos, control)
        user = alpaca.layout.user
        alpaca.layout = replace(alpaca.layout, user=Around(user.before, user.after + ("\n" if checked.newline else "")))
    else:
        made = own = LayoutFormat(bos, eos, control)
        own.name, own.layout = checked.name, layout_of(checked.values())
        own.uses_bos = "{bos}" in checked.user.before or checked.bos
        own.tags, own.stop_strings = checked.tags, checked.stop_strings
    made.spec = dict(spec)
    return made


def _spec_of(text: str, where: str) -> LayoutSpec | CodeLlama70BSpec | AlpacaSpec:
    kinds: dict[str, type[CodeLlama70BSpec | AlpacaSpec]] = {"codellama70b": CodeLlama70BSpec, "alpaca": AlpacaSpec}
    try:
        extends = (yaml.safe_load(text) or {}).get("extends")
    except (yaml.YAMLError, AttributeError):
        extends = None
    if extends is not None and extends not in kinds:
        raise FormatError(f"{where}: extends is {extends!r}; only {' and '.join(kinds)} have settings. Other formats are written whole: "
                          "user, assistant, system, ...")
    return parse_config(LayoutSpec, text, where) if extends is None else parse_config(kinds[extends], text, where)
