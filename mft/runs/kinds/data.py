"""The kind `data`: build a recipe."""

from pathlib import Path
from typing import Any

from mft.data.config import load_recipe
from mft.data.pipeline import build, job_hash, recipe_inputs
from mft.files import MANIFEST, read_json
from mft.runs.build import rows_bar
from mft.runs.config import DataStage
from mft.runs.kinds.context import Kind, StageContext


def _recipe_path(context: StageContext, stage: DataStage) -> Path:
    return context.beside / stage.recipe


def _data_sources(context: StageContext, stage: DataStage) -> str:
    recipe = load_recipe(_recipe_path(context, stage), must_exist=True)
    return job_hash(recipe, recipe_inputs(recipe))


def run_data(context: StageContext, stage: DataStage) -> dict[str, Any]:
    """Build the recipe into the stage's folder."""
    with rows_bar() as report:
        return build(_recipe_path(context, stage), context.folder, overwrite=context.overwrite or context.replace, report=report).facts


def _rows_hash(context: StageContext, result: dict[str, Any]) -> str:
    return str(read_json(context.folder / MANIFEST)["sha256"])


DATA = Kind(run_data, _rows_hash, _data_sources, handed_on=lambda context, stage: [context.folder])
