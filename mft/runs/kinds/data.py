"""The kind `data`: build a recipe."""

from collections.abc import Iterator
from typing import Any

from mft.data.config import RecipeConfig, load_recipe
from mft.data.pipeline import PARTS, build, job_hash, recipe_inputs
from mft.data.source_config import CodeSource, HubSource, ModelscopeSource, Source
from mft.data.sources import source_paths, tree_paths
from mft.errors import DataError
from mft.files import MANIFEST, read_json
from mft.runs.build import rows_bar
from mft.runs.config import DataStage
from mft.runs.forecast import Forecast, size
from mft.runs.kinds.context import Kind, StageContext
from mft.runs.planning import PlanOptions


def _recipe(context: StageContext, stage: DataStage, *, must_exist: bool = True) -> RecipeConfig:
    return load_recipe(context.beside / stage.recipe, parameters=stage.values(context.beside, context.out), must_exist=must_exist)


def _data_sources(context: StageContext, stage: DataStage) -> str:
    recipe = _recipe(context, stage)
    if context.read_only and (hubs := [source.name for source in _sources_of(recipe) if isinstance(source, HubSource | ModelscopeSource)]):
        raise DataError(f"{hubs[0]} is a data set of a hub, which a dry run does not ask")
    return job_hash(recipe, recipe_inputs(recipe))


def run_data(context: StageContext, stage: DataStage) -> dict[str, Any]:
    """Build the recipe into the stage's folder."""
    with rows_bar() as report:
        return build(_recipe(context, stage), context.folder, overwrite=context.overwrite or context.replace, report=report).facts


def _rows_hash(context: StageContext, result: dict[str, Any]) -> str:
    return str(read_json(context.folder / MANIFEST)["sha256"])


def forecast_data(context: StageContext, stage: DataStage, options: PlanOptions) -> Forecast:
    """Rows, where the data is built; else which files of the recipe are there."""
    if (context.folder / MANIFEST).is_file():
        built = read_json(context.folder / MANIFEST)
        rows = {part: sum(counts[part] for counts in built["per_task"].values()) for part in PARTS}
        return Forecast(f"built: {rows['train']:,} rows to train on, {rows['validation']:,} held out", {"rows": rows})
    recipe = _recipe(context, stage, must_exist=False)
    awaited = sorted({value.stage for value in stage.parameters.values() if value.stage and not (context.out / value.stage).is_dir()})
    files, total_bytes, hubs, missing = 0, 0, [], []
    for source in _sources_of(recipe):
        if isinstance(source, HubSource | ModelscopeSource):
            hubs.append(source.name)
            continue
        try:
            paths = [path for _, path in (tree_paths(source) if isinstance(source, CodeSource) else source_paths(source))]
        except DataError as error:
            if not any((context.out / name).absolute().as_posix() in str(error) for name in awaited):
                missing.append(str(error).splitlines()[0])
            continue
        files += len(paths)
        total_bytes += sum(path.stat().st_size for path in paths)
    parts = [f"{files:,} files, {size(total_bytes)}"] if files else []
    parts += [f"to be fetched: {', '.join(dict.fromkeys(hubs))}"] if hubs else []
    parts += [f"rows of '{name}' are not there yet" for name in awaited]
    parts += [f"missing: {fault}" for fault in dict.fromkeys(missing)]
    return Forecast("; ".join(parts), {"files": files, "bytes": total_bytes, "hubs": hubs, "awaited": awaited, "missing": missing},
                    disk_bytes=None)


def _sources_of(recipe: RecipeConfig) -> Iterator[Source]:
    for task in recipe.tasks.values():
        yield from task.sources


DATA = Kind(run_data, _rows_hash, _data_sources, handed_on=lambda context, stage: [context.folder], forecast=forecast_data)
