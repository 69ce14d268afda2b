"""From a file of another tool to a project, a recipe and a report of what became of each key."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from mft.config.load import validate
from mft.config.model import StrictModel
from mft.config.yaml import Document, KeyPath
from mft.data.config import RecipeConfig
from mft.errors import ConfigError, OutputError
from mft.files import write_text
from mft.runs.config import ProjectConfig
from mft.runs.importing.axolotl import import_axolotl
from mft.runs.importing.draft import Draft
from mft.runs.importing.llamafactory import import_llamafactory
from mft.runs.importing.mftcoder import import_mftcoder
from mft.runs.importing.source import Source, read_source
from mft.runs.importing.write import project_of, project_text, recipe_of, recipe_text

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool whose configs can be imported. `signature`: keys by which its files are told from those of the others."""

    title: str
    fill: Callable[[Draft, Options], None]
    signature: frozenset[str]


TOOLS: Final[Mapping[str, Tool]] = {
    "mftcoder": Tool("MFTCoder", import_mftcoder, frozenset({
        "pretrained_model_path", "data_paths", "tb_dir", "weighted_loss_mode", "padding_mode", "tokenize_mode", "peft_type", "seq_length",
        "num_warmup_steps", "data_split", "min_lr"})),
    "llamafactory": Tool("LLaMA-Factory", import_llamafactory, frozenset({
        "model_name_or_path", "stage", "finetuning_type", "dataset", "template", "cutoff_len", "lora_target", "lora_rank",
        "quantization_bit", "dataset_dir", "preprocessing_num_workers", "train_dataset", "peft_config", "dist_config"})),
    "axolotl": Tool("axolotl", import_axolotl, frozenset({
        "base_model", "datasets", "sequence_len", "sample_packing", "micro_batch_size", "adapter", "lora_r", "load_in_4bit", "num_epochs",
        "val_set_size", "dataset_prepared_path"})),
}


@dataclass(frozen=True, slots=True)
class Imported:
    """An import: both files as values and as text, and the report."""

    config: dict[str, Any]
    recipe: dict[str, Any]
    config_text: str
    recipe_text: str
    recipe_name: str
    report: dict[str, Any]


def import_config(tool: str, path: Path, *, out: Path | None = None, gpus: int | None = None, overrides: Sequence[str] = (),
                  dataset_info: Path | None = None) -> Imported:
    """Turn a training config of `tool` into a project and its recipe. Nothing is written.

    `out`: where the project would be written; the recipe's name and relative paths hang on it. `gpus`: how many the run had.

    Raises:
        ConfigError: an unknown tool, a file of another tool, a kind of training that does not exist here, a value that is wrong.
    """
    chosen = find_tool(tool)
    _check_signature(tool, read_source(path))   # by the file's own keys: any file would look right with enough KEY=VALUE
    document = read_source(path, overrides)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", (out or path).stem).lstrip("._-") or "imported"
    draft = Draft(chosen.title, Source(document), gpus or 1, gpus is not None, out.parent if out else Path())
    chosen.fill(draft, {"dataset_info": dataset_info})
    draft.check()
    recipe_name = f"{name}-data.yaml"
    config, recipe = project_of(draft, name, recipe_name), recipe_of(draft, name)
    _check(draft, config, recipe)
    head = f"Made from {path.name} of {chosen.title} by `mft import`."
    return Imported(config, recipe, project_text(draft, config, f"{head} Look through it, then: mft train {out or 'CONFIG'} --dry-run"),
                    recipe_text(recipe, f"{head} The data of the project {name}."), recipe_name, draft.report())


def write_imported(imported: Imported, out: Path, *, overwrite: bool = False) -> list[Path]:
    """Write project and recipe side by side; returns their paths.

    Raises:
        OutputError: one of them is there already.
    """
    files = {out: imported.config_text, out.parent / imported.recipe_name: imported.recipe_text}
    if not overwrite and (there := [str(path) for path in files if path.exists()]):
        raise OutputError(f"{', '.join(there)}: there already; give another --out, or --overwrite")
    if out.is_dir():
        raise OutputError(f"{out}: is a folder; give the name of a file, such as {out / 'project.yaml'}")
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        write_text(path, text)
    return list(files)


def find_tool(name: str) -> Tool:
    """The tool of this name.

    Raises:
        ConfigError: none of that name; the message lists those there are.
    """
    if name not in TOOLS:
        close = get_close_matches(name.lower().replace("-", "").replace("_", ""), TOOLS, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ConfigError([f"'{name}': configs of this tool cannot be imported; expected one of {', '.join(TOOLS)}{hint}"])
    return TOOLS[name]


def _check_signature(name: str, document: Document) -> None:
    """Refuse a file that has more of another tool's keys.

    Raises:
        ConfigError: it says of which tool the file looks.
    """
    scores = {other: len(tool.signature & document.data.keys()) for other, tool in TOOLS.items()}
    best = max(scores, key=lambda other: (scores[other], other == name))
    if scores[best] > scores[name]:
        raise ConfigError([f"{document.path}: looks like a config of {TOOLS[best].title}, not of {TOOLS[name].title}: "
                           f"it has {', '.join(sorted(TOOLS[best].signature & document.data.keys())[:4])}; "
                           f"try `mft import {best} {document.path}`"])
    if not scores[name]:
        raise ConfigError([f"{document.path}: does not look like a training config of {TOOLS[name].title}: it has none of "
                           f"{', '.join(sorted(TOOLS[name].signature))}"])


def _check(draft: Draft, config: dict[str, Any], recipe: dict[str, Any]) -> None:
    """What project and recipe would refuse is said with the line of the file that it came from.

    Raises:
        ConfigError: a value of the file that has a counterpart, but not with this value.
    """
    problems: list[str] = []
    source = draft.source.document.path
    lines: dict[KeyPath, int] = {tuple(1 if step == "train" else step for step in key): line for key, line in draft.lines.items()}
    models: tuple[type[StrictModel], ...] = (ProjectConfig, RecipeConfig)
    for model, values, places in zip(models, (config, recipe), (lines, dict[KeyPath, int]()), strict=True):
        try:
            validate(model, Document(source, values, places), context={"folder": draft.folder})
        except ConfigError as error:
            problems += [f"{problem} (our key; the value is the file's)" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
