"""The kind `synthesize`: rows that a model makes and that compilers and tests judge."""

import logging
from pathlib import Path
from typing import Any

from mft.data.decontamination.config import DecontaminateStep
from mft.data.ledger import Ledger
from mft.data.step_inputs import problem_hashes
from mft.files import MANIFEST, read_json
from mft.runs.config import SynthesizeStage
from mft.runs.forecast import Forecast
from mft.runs.kinds.context import Kind, StageContext
from mft.runs.planning import PlanOptions
from mft.runs.synthesize import synthesize_with_bars
from mft.synthesis.bounds import most_asked
from mft.synthesis.client.config import EndpointConfig
from mft.synthesis.config import SynthesizeOptions
from mft.synthesis.seeds import ROWS, read_seeds, seeds_hash


def options_of(stage: SynthesizeStage) -> SynthesizeOptions:
    """The stage without what is a stage's alone; its steps keep the folder that their paths start from."""
    return SynthesizeOptions.model_construct(**{name: getattr(stage, name) for name in SynthesizeOptions.model_fields})


def seeds_of(context: StageContext, stage: SynthesizeStage) -> Path:
    """Where the seeds are."""
    return context.out / stage.data if stage.data is not None else context.beside / str(stage.seeds)


def _synthesize_sources(context: StageContext, stage: SynthesizeStage) -> Any:
    """Hashes of the seeds that are given as a path, and of the problem files; an earlier stage has a fingerprint of its own."""
    problems = [problem_hashes(step)["sha256"] for step in stage.steps if isinstance(step, DecontaminateStep)]
    return [seeds_hash(seeds_of(context, stage)) if stage.data is None else None, *problems]


def run_synthesize(context: StageContext, stage: SynthesizeStage) -> dict[str, Any]:
    """Run it into the stage's folder; answers that were paid for are beside it, whatever happens to the folder."""
    return synthesize_with_bars(seeds_of(context, stage), context.folder, options_of(stage), beside=context.beside,
                                overwrite=context.overwrite or context.replace)


def _rows_hash(context: StageContext, result: dict[str, Any]) -> str:
    return str(read_json(context.folder / MANIFEST)["files"][ROWS]["sha256"])


def forecast_synthesize(context: StageContext, stage: SynthesizeStage, options: PlanOptions) -> Forecast:
    """The most that can be asked of the model; cost where a budget bounds it, or a price bounds nothing because nobody is asked."""
    seeds = seeds_of(context, stage)
    if not seeds.exists():
        return Forecast(f"seeds of '{stage.data or stage.seeds}' are not there yet", hours=None, cost=None, disk_bytes=None)
    number = len(read_seeds(seeds, options_of(stage), Ledger("read", level=logging.DEBUG)))
    bounds = most_asked(options_of(stage), number)
    requests, tokens = sum(bound.requests for bound in bounds), sum(bound.answer_tokens for bound in bounds)
    budget = stage.client.budget if isinstance(stage.client, EndpointConfig) else None
    asked = f"at most {requests:,} requests and {tokens:,} tokens of answers" if bounds else "no model is asked"
    limit = f", within the budget of {budget.cost:g}" if budget and budget.cost is not None else ""
    cost = 0.0 if not bounds or not isinstance(stage.client, EndpointConfig) else budget.cost if budget else None
    facts = {"seeds": number, "most_requests": requests, "most_answer_tokens": tokens,
             "steps": {f"{place}.{bound.step}": bound.requests for place, bound in enumerate(bounds)}}
    return Forecast(f"{number:,} seeds; {asked}{limit}", facts, hours=None, cost=cost, disk_bytes=None)


SYNTHESIZE = Kind(run_synthesize, _rows_hash, _synthesize_sources, handed_on=lambda context, stage: [context.folder],
                  forecast=forecast_synthesize)
