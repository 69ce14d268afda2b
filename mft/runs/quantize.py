"""What `mft quantize` is asked for: a project's stage, or one model on the command line."""

from pathlib import Path
from typing import Any

from mft.config.load import validate
from mft.config.yaml import Document, parse_yaml
from mft.errors import ConfigError
from mft.modeling.base import config_of_base, lasting_name, resolve_base
from mft.quantization.config import QuantizeOptions, absolute_texts
from mft.quantization.matrix import Request, quantize
from mft.quantization.preview import preview
from mft.release.card import finish_folder
from mft.runs.config import ProjectConfig, QuantizeStage
from mft.runs.project import Project, run_project

NONE = "none"


def options_of_flags(job: dict[str, Any], rows: int | None, texts: list[str], decontaminate: str | None) -> QuantizeOptions:
    """One job as a matrix. `texts`: NAME=PLACE; `decontaminate`: a benchmark as in a recipe, or `none`.

    Raises:
        ConfigError: every mistake.
    """
    if faults := [f"--text {text}: write NAME=FILE, or stdlib=stdlib" for text in texts if "=" not in text]:
        raise ConfigError(faults)
    calibration: dict[str, Any] = {} if rows is None else {"rows": rows}
    if decontaminate is not None:
        calibration["decontaminate"] = [] if decontaminate == NONE else [decontaminate]
    given = {"jobs": [{key: value for key, value in job.items() if value is not None}], "calibration": calibration,
             "quality": {"texts": dict(text.split("=", 1) for text in texts)}}
    return validate(QuantizeOptions, Document("mft quantize", given))


def quantize_model(model: str, out: Path | None, options: QuantizeOptions, source: Path | None, prompt_format: str | None, *,
                   dry_run: bool, overwrite: bool, converter: str = "auto") -> dict[str, Any]:
    """One model in one way; `out` is its folder.

    Raises:
        ConfigError: no `out`; as `quantize`.
    """
    if dry_run:
        config, found = config_of_base(model)
        return {"model": model, "config": found, **preview(config, options)}
    if out is None:
        raise ConfigError(["--out: is required and not given"])
    folder = resolve_base(model)
    if options.quality:
        options = options.model_copy(update={"quality": absolute_texts(options.quality, Path())})
    return quantize(Request(folder, lasting_name(model, folder), out, options, source, _format(prompt_format), single=True,
                            overwrite=overwrite, converter=converter, finish=finish_folder))


def _format(given: str | None) -> str | dict[str, Any] | None:
    if given is not None and given.endswith((".yaml", ".yml")):
        described: dict[str, Any] = parse_yaml(Path(given).read_text(encoding="utf-8"), given).data
        return described
    return given


def stage_of(config: ProjectConfig, path: Path, name: str | None) -> QuantizeStage:
    """The quantize stage of this name, or the only one.

    Raises:
        ConfigError: there is none, or several and none is named.
    """
    stages = [stage for stage in config.stages if isinstance(stage, QuantizeStage)]
    found = [stage for stage in stages if name in (None, stage.name)]
    if len(found) != 1:
        raise ConfigError([f"{path}: --stage: quantize stages of this config: {', '.join(stage.name for stage in stages) or 'none'}"])
    return found[0]


def quantize_stage(project: Project, stage: QuantizeStage, *, dry_run: bool) -> dict[str, Any]:
    """A project's matrix, and the earlier stages that it needs; a dry run looks at the base's config.json alone."""
    if dry_run:
        config, found = config_of_base(project.config.model.base, project.path.parent)
        return {"model": project.config.model.base if stage.model == "base" else stage.model, "config": found, **preview(config, stage)}
    record = run_project(project, only=stage.name)
    result: dict[str, Any] = next(entry["result"] for entry in record["stages"] if entry["name"] == stage.name)
    return result
