"""The YAML of an imported project and of its recipe: keys in our order, beside each where its value comes from."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml
from pydantic import BaseModel

from mft.data.config import RecipeConfig
from mft.modeling.config import AdapterConfig, ModelConfig, QuantizationConfig
from mft.runs.config import TrackingConfig, TrainStage
from mft.runs.importing.draft import TRAIN, Draft
from mft.training.config import DistributedConfig, TasksConfig, TrainingConfig

WIDTH: Final = 120
BLOCKS: Final[Mapping[str, type[BaseModel]]] = {"quantization": QuantizationConfig, "adapter": AdapterConfig, "tasks": TasksConfig,
                                                "training": TrainingConfig, "distributed": DistributedConfig}
assert BLOCKS.keys() <= TrainStage.model_fields.keys()


def project_of(draft: Draft, name: str, recipe: str) -> dict[str, Any]:
    """The project as nested values, in the order in which configs are written."""
    train: dict[str, Any] = {"kind": "train", "name": "train", "data": "data"}
    given = draft.config.get("stages", {}).get("train", {})
    for block, model in BLOCKS.items():
        if given.get(block):
            train[block] = _ordered(given[block], model)
    project: dict[str, Any] = {"name": name, "model": _ordered(draft.config["model"], ModelConfig)}
    if draft.config.get("tracking"):
        project["tracking"] = _ordered(draft.config["tracking"], TrackingConfig)
    return {**project, "stages": [{"kind": "data", "name": "data", "recipe": recipe}, train]}


def recipe_of(draft: Draft, name: str) -> dict[str, Any]:
    """The recipe as nested values."""
    return _ordered({**draft.recipe, "name": name}, RecipeConfig)


def project_text(draft: Draft, project: dict[str, Any], head: str) -> str:
    """The project's file: a header with what could not be carried over, then the values with their origins."""
    parts = [head]
    if draft.without:
        parts += ["", "Without a counterpart:", *(f"- {fate.key}: {_short(fate.value)}: {fate.why}" for fate in draft.without)]
    if draft.notes:
        parts += ["", "To know:", *(f"- {note}" for note in draft.notes)]
    comments = {key.replace(TRAIN, "stages.1.", 1) if key.startswith(TRAIN) else key: text for key, text in draft.comments.items()}
    return _commented(parts) + "\n" + "\n".join(_lines(project, "", "", comments)) + "\n"


def recipe_text(recipe: dict[str, Any], head: str) -> str:
    """The recipe's file."""
    return _commented([head]) + "\n" + "\n".join(_lines(recipe, "", "", {})) + "\n"


def _ordered(values: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The keys in the order of the model's fields; others, which the model will refuse, last."""
    known = [key for key in model.model_fields if key in values]
    return {key: values[key] for key in [*known, *(key for key in values if key not in known)]}


def _commented(parts: list[str]) -> str:
    lines: list[str] = []
    for part in parts:
        indent = "  " if part.startswith("- ") else ""
        plain = _shown(part)
        lines += textwrap.wrap(plain, WIDTH - 2, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False) or [""]
    return "\n".join(f"# {line}".rstrip() for line in lines) + "\n"


def _lines(value: Any, indent: str, path: str, comments: Mapping[str, str]) -> Iterator[str]:
    """Block style for mappings and for lists of mappings, one line for everything else."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in entries:
        inner = f"{path}.{key}" if path else str(key)
        head = f"{indent}-" if isinstance(value, list) else f"{indent}{_scalar(key)}:"
        comment = f"   # {_short(comments[inner])}" if inner in comments else ""
        if isinstance(part, dict) and part and isinstance(value, list):
            first, *rest = _lines(part, indent + "  ", inner, comments)
            yield from (f"{indent}- {first.lstrip()}", *rest)
        elif (isinstance(part, dict) and part) or (isinstance(part, list) and any(isinstance(item, dict) for item in part)):
            yield head + comment
            yield from _lines(part, indent + "  ", inner, comments)
        else:
            yield f"{head} {_scalar(part)}{comment}"


def _scalar(value: Any) -> str:
    """A value on one line, in a spelling that both YAML 1.1 and our reader take for the same."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return repr(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=2**31, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _short(value: Any) -> str:
    """A value inside a sentence, on one line."""
    text = _shown(value if isinstance(value, str) else _scalar(value))
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}..."


def _shown(text: str) -> str:
    """Text on one line of a comment; characters that YAML does not allow there are written as escapes."""
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in " ".join(text.split()))
