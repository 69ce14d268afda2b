"""How a train stage is followed: the project's config, the manifest of its data, and the prompts that are answered while it trains."""

from pathlib import Path
from typing import Any

from mft.data.pipeline import read_built
from mft.evaluation.samples import generate_samples, pick_exercises
from mft.files import MANIFEST, read_json
from mft.runs.config import ProjectConfig, TrainStage
from mft.training.ranks import is_first_rank
from mft.training.tokens import RunTokens
from mft.training.tracking import Sampler, TrackingOptions

MAX_NEW_TOKENS = 128
"""Length of an answer: enough to see whether a task is learnt, little beside an evaluation."""


def tracking_options(config: ProjectConfig, stage: TrainStage, data: Path, tokens: RunTokens, longest: int) -> TrackingOptions:
    """What the trackers of a stage are told. `data`: its built data folder; `longest`: positions that the base was made for."""
    tracking = config.tracking
    return TrackingOptions(
        project=config.name, name=stage.name, wandb=tracking.wandb, tensorboard=tracking.tensorboard, config=config.model_dump(mode="json"),
        data=read_json(data / MANIFEST), generations=tracking.generations,
        sampler=answer_prompts(data, tokens, tracking.generations, config.model.context, longest)
        if tracking.generations and is_first_rank() else None)


def answer_prompts(data: Path, tokens: RunTokens, number: int, context: int, longest: int) -> Sampler:
    """A function that has `number` held-out prompts answered, greedily; which prompts, depends on the rows' ids alone.

    Prompts have at most half the context, so that they are quick. The model may be one that is being trained: it comes out in the
    mode it was in, and no random number is drawn.
    """
    exercises = pick_exercises(read_built(data)["validation"], tokens.prompt_format, tokens.tokenizer, number=number,
                               max_prompt_tokens=min(context // 2, longest - MAX_NEW_TOKENS))

    def sample(model: Any) -> list[dict[str, str]]:
        answers = generate_samples(model, "", exercises, tokens.prompt_format, tokens.tokenizer, max_new_tokens=MAX_NEW_TOKENS)
        return [{"task": answer.task, "id": answer.id, "prompt": answer.prompt, "reference": answer.reference,
                 "completion": answer.completion} for answer in answers]

    return sample
