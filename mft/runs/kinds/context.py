"""Where a stage stands, and what a kind of stage must tell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mft.modeling.added_tokens import STORE, extend_base, extended_base
from mft.modeling.base import base_files, resolve_base
from mft.modeling.quantized_cache import QuantizedCache
from mft.modeling.stamps import STAMPS, stamped_hashes
from mft.release.records import RunRecords
from mft.runs.config import MergeStage, ProjectConfig, Stage, TrainStage
from mft.runs.finished import STAGES
from mft.runs.forecast import Forecast
from mft.runs.planning import PlanOptions

QUANTIZED = ".quantized"
"""In the output folder: the cache of `model.quantized_cache: auto`."""

ReportWriter = Callable[[Path, Path], Path]
"""(run folder, page) -> page. The report is written by a neighbour on this floor, so the command line hands it in."""


def do_nothing() -> None:
    """For stages that nobody waits for."""


@dataclass(frozen=True, slots=True)
class StageContext:
    """Where a stage stands. `beside`: the config's folder; `folder`: the stage's own output.

    `overwrite`: the user wants the stage anew. `replace`: the folder holds what this project made of it with other settings.
    `lost`: files below `out` that it had left, and that are gone. `record`: run.json as it stands.
    """

    config: ProjectConfig
    beside: Path
    out: Path
    folder: Path
    overwrite: bool
    replace: bool
    record: dict[str, Any]
    write_report: ReportWriter
    resume: str = "auto"
    lost: Sequence[str] = ()
    before_training: Callable[[], None] = do_nothing
    """Called by a train stage before it trains."""
    processes: int | None = None
    """Ranks of a train stage, where the command line gives them."""
    command: Sequence[str] = ()
    """`mft` arguments that train this project's stages; ranks are started with them."""

    read_only: bool = False
    """Nothing may be written or fetched: a dry run asks."""

    @property
    def records(self) -> RunRecords:
        """What the card of a stage's model may say: the config, and the stages before it."""
        return RunRecords(self.config.model_dump(mode="json"), tuple(self.record["stages"]), dict(self.record.get("versions") or {}),
                          self.config.name)

    @property
    def base(self) -> Path:
        """The folder of the project's base model; with `model.add_tokens`, of the extended one in the output."""
        model = self.config.model
        folder = resolve_base(model.base, beside=self.beside, fetch=not self.read_only)
        if not model.add_tokens:
            return folder
        return (extended_base if self.read_only else extend_base)(folder, model.add_tokens, self.out / STORE)

    def base_of(self, stage: TrainStage) -> Path:
        """The folder of the model whose weights a train stage leaves as they are: the project's base, or what `init_from` merged."""
        if stage.init_from is None:
            return self.base
        start = self.config.stage(stage.init_from)
        return self.base_of(start) if isinstance(start, TrainStage) else self.out / start.name

    def hashes_of(self, model: Path) -> dict[str, str]:
        """sha256 of config.json and weights of a model folder; files that are as they were at an earlier command are not read again."""
        return stamped_hashes(base_files(model), self.stamps, keep=not self.read_only)

    @property
    def stamps(self) -> Path:
        """Where hashes of large files are kept between commands."""
        return self.out / STAGES / STAMPS

    @property
    def quantized_cache(self) -> QuantizedCache | None:
        """Where `model.quantized_cache` says that a base in NF4 is kept."""
        asked = self.config.model.quantized_cache
        if asked == "off":
            return None
        return QuantizedCache(self.out / QUANTIZED if asked == "auto" else self.beside / Path(asked).expanduser(), self.stamps)

    def base_behind(self, stage: Stage) -> Path:
        """The base of a train stage, or of that whose adapter a merge stage takes; of any other stage the project's."""
        train_stage = self.config.stage(stage.adapter) if isinstance(stage, MergeStage) else stage
        return self.base_of(train_stage) if isinstance(train_stage, TrainStage) else self.base


def no_sources(context: StageContext, stage: Any) -> None:
    """For a kind that reads earlier stages alone."""


def nothing_handed_on(context: StageContext, stage: Any) -> Sequence[Path]:
    """For a kind whose output no later stage reads."""
    return ()


@dataclass(frozen=True, slots=True)
class Kind:
    """`run(context, stage)` gives the stage's result; `sources` hashes what it reads from outside; `fingerprint` its output."""

    run: Callable[[StageContext, Any], dict[str, Any]]
    fingerprint: Callable[[StageContext, dict[str, Any]], str]
    sources: Callable[[StageContext, Any], Any] = no_sources
    handed_on: Callable[[StageContext, Any], Sequence[Path]] = nothing_handed_on
    """Files, and folders with a manifest, that make up the finished stage: what later stages may read."""
    forecast: Callable[[StageContext, Any, PlanOptions], Forecast] | None = None
    """What the stage would take; nothing may be loaded, written or fetched. None: nothing worth a word."""
    faults: Callable[[dict[str, Any]], Sequence[str]] = lambda result: ()
    """What a finished stage found wrong: the stages after it still run, then the project fails."""
