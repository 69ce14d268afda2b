"""A few held-out prompts and what models answer, for people to read."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from peft import PeftModel
from transformers import PreTrainedModel

from mft.conversation import Conversation
from mft.formats.base import PromptFormat, joined
from mft.generation.hf import generate
from mft.tokenization.compatibility import stop_ids
from mft.tokenization.encode import encode_prompt
from mft.tokenization.load import TextTokenizer


@dataclass(frozen=True, slots=True)
class Exercise:
    """A held-out prompt: the text as served, its ids, and the answer of the data as the format would train it."""

    task: str
    id: str
    prompt: str
    prompt_ids: tuple[int, ...]
    reference: str


@dataclass(frozen=True, slots=True)
class SampleGeneration:
    """What one model answered to one held-out prompt."""

    task: str
    id: str
    prompt: str
    reference: str
    completion: str
    finish_reason: str
    model: str

    def to_json(self) -> dict[str, str]:
        """As listed under `generations` in `result.json`."""
        return asdict(self)


def pick_exercises(rows: Sequence[Conversation], prompt_format: PromptFormat, tokenizer: TextTokenizer, *, number: int,
                   max_prompt_tokens: int, seed: int = 0) -> list[Exercise]:
    """`number` rows, one of each task in turn; which, depends on the seed and the rows' ids alone, not on their order.

    Only rows whose prompt has at most `max_prompt_tokens` tokens are candidates. A row's prompt is all before its last
    answer. Fewer than `number` come back only when there are no more.
    """
    waiting: dict[str, list[Conversation]] = {task: [] for task in sorted({row.task for row in rows})}
    for row in sorted(rows, key=lambda row: (_draw(seed, row.id), row.id)):
        if prompt_format.fault(row.messages) is None and prompt_format.fault(row.messages[:-1], prompt=True) is None:
            waiting[row.task].append(row)
    picked: list[Exercise] = []
    while len(picked) < number and any(waiting.values()):
        for queue in waiting.values():
            exercise = _next_fitting(queue, prompt_format, tokenizer, max_prompt_tokens)
            if exercise is not None and len(picked) < number:
                picked.append(exercise)
    return picked


def generate_samples(model: PreTrainedModel | PeftModel, name: str, exercises: Sequence[Exercise], prompt_format: PromptFormat,
                     tokenizer: TextTokenizer, *, max_new_tokens: int) -> list[SampleGeneration]:
    """The model's greedy answers to the exercises, under the name that results give the model."""
    completions = generate(model, tokenizer, [exercise.prompt_ids for exercise in exercises], max_new_tokens=max_new_tokens,
                           stop_ids=stop_ids(prompt_format, tokenizer), stop_strings=prompt_format.stop_strings)
    return [SampleGeneration(task=exercise.task, id=exercise.id, prompt=exercise.prompt, reference=exercise.reference,
                             completion=completion.text, finish_reason=completion.finish_reason, model=name)
            for exercise, completion in zip(exercises, completions, strict=True)]


def _draw(seed: int, row_id: str) -> str:
    return hashlib.sha256(f"{seed}\n{row_id}".encode("utf-8", "surrogatepass")).hexdigest()


def _next_fitting(queue: list[Conversation], prompt_format: PromptFormat, tokenizer: TextTokenizer,
                  longest: int) -> Exercise | None:
    """Take rows off the queue until one's prompt fits; None when the queue is empty."""
    while queue:
        row = queue.pop(0)
        ids = encode_prompt(row.messages[:-1], prompt_format, tokenizer)
        if len(ids) <= longest:
            text = joined(prompt_format.render_prompt(row.messages[:-1]))
            return Exercise(row.task, row.id, text, tuple(ids), prompt_format.canonical(row.messages[-1].content))
    return None
