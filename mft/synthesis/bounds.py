"""How much a synthesis can ask of the model at most, before anything is asked."""

from dataclasses import dataclass

from mft.synthesis.config import SynthesizeOptions
from mft.synthesis.makers.config import AnswerStep, EvolveStep, MakerStep, TranslateStep


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that one step asks. `answer_tokens`: if every answer were as long as it may be."""

    step: str
    requests: int
    answer_tokens: int


def most_asked(options: SynthesizeOptions, seeds: int) -> list[Bound]:
    """The bound of each step in which a model writes, as if no row were ever dropped.

    >>> from mft.synthesis.config import SynthesizeOptions
    >>> options = SynthesizeOptions.model_validate({"steps": [{"type": "evolve", "rounds": 2, "max_tokens": 100}, {"type": "answer"}]})
    >>> [(bound.step, bound.requests, bound.answer_tokens) for bound in most_asked(options, 10)]
    [('evolve', 20, 2000), ('answer', 30, 61440)]
    """
    rows, bounds = seeds, []
    for step in options.steps:
        if not isinstance(step, MakerStep):
            continue
        requests = rows * (step.rounds if isinstance(step, EvolveStep) else step.samples if isinstance(step, AnswerStep) else 1)
        bounds.append(Bound(step.type, requests, requests * step.max_tokens))
        if isinstance(step, EvolveStep):
            rows *= step.rounds + step.keep_parents
        elif isinstance(step, TranslateStep):
            rows *= 1 + step.keep_parents
    return bounds
