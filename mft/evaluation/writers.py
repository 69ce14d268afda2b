"""Who writes the answers: a model loaded here, or servers. Both take prompts of a protocol and give text back, one by one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mft.conversation import Message
from mft.evaluation.programs import user_text
from mft.evaluation.protocol import Protocol as Rules
from mft.formats.base import PromptFormat, joined
from mft.generation.completion import stop_position
from mft.generation.openai_endpoint import Ask, Endpoints
from mft.problems.problem import Problem

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from mft.tokenization.load import TextTokenizer


MOST_STOPS = 4
"""Stop strings that every server takes; answers are cut here at the others, which only costs their tokens."""


@dataclass(frozen=True, slots=True)
class Written:
    """An answer, without what ended it. `finish_reason`: `stop`, `length`, or `no_room` where the prompt left none."""

    text: str
    finish_reason: str
    tokens: int | None


class Writer(Protocol):
    """What `write_samples` needs of a backend."""

    batch: int
    """Problems that are given at a time."""

    streams: bool
    """Answers do not depend on each other and come one by one; else a batch is one draw, and is asked and kept whole."""

    def write(self, problems: Sequence[Problem], rules: Rules, seed: int) -> Iterator[tuple[int, Written]]:
        """(index of the problem, answer), each problem once, in any order."""
        ...

    def facts(self) -> dict[str, Any]:
        """What of the backend a score depends on."""
        ...


@dataclass(slots=True)
class ModelWriter:
    """A model of transformers: left-padded batches, stops inside the loop."""

    model: "PreTrainedModel | PeftModel"
    tokenizer: "TextTokenizer"
    prompt_format: PromptFormat
    batch: int = 8
    streams: bool = False

    def write(self, problems: Sequence[Problem], rules: Rules, seed: int) -> Iterator[tuple[int, Written]]:
        """Answers of one batch. A prompt near the model's longest row gets fewer new tokens than the protocol allows."""
        prompts = [prompt_ids(problem, rules, self.prompt_format, self.tokenizer) for problem in problems]
        longest = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 1 << 40
        room = [min(rules.decoding.max_new_tokens, longest - len(prompt)) for prompt in prompts]
        yield from ((index, Written("", "no_room", 0)) for index, left in enumerate(room) if left < 1)
        for size in sorted({left for left in room if left >= 1}, reverse=True):
            same = [index for index, left in enumerate(room) if left == size]
            yield from zip(same, self._continued([prompts[index] for index in same], rules, size, seed), strict=True)

    def _continued(self, prompts: Sequence[Sequence[int]], rules: Rules, size: int, seed: int) -> list[Written]:
        from mft.generation.hf import generate
        from mft.tokenization.compatibility import stop_ids

        completions = generate(
            self.model, self.tokenizer, prompts, max_new_tokens=size, temperature=rules.decoding.temperature,
            top_p=rules.decoding.top_p, seed=seed, stop_ids=stop_ids(self.prompt_format, self.tokenizer),
            stop_strings=(*rules.stops, *self.prompt_format.stop_strings), batch_size=max(1, len(prompts)))
        return [Written(each.text, each.finish_reason, len(each.token_ids)) for each in completions]

    def facts(self) -> dict[str, Any]:
        """Backend, dtype, batch, format and tokenizer."""
        return {"backend": "transformers", "dtype": str(self.model.dtype).removeprefix("torch."), "batch": self.batch,
                "format": self.prompt_format.reference, "tokenizer_sha256": self.tokenizer.sha256}


def prompt_ids(problem: Problem, rules: Rules, prompt_format: PromptFormat, tokenizer: "TextTokenizer") -> list[int]:
    """The ids that a model is given, the prefill of its answer included."""
    from mft.tokenization.encode import encode_prompt

    return encode_prompt([Message("user", user_text(problem, rules))], prompt_format, tokenizer, prefill=rules.prefill)


@dataclass(slots=True)
class EndpointWriter:
    """OpenAI-compatible servers.

    `prompt_format`: rendered here and sent as text, control tokens written out, with the server told to add none; None: format `raw` as
    plain text, the server adding its BOS, and format `model` as chat messages, the server using its own template (a prefill is then sent
    as an unfinished turn, which vLLM continues).
    """

    endpoints: Endpoints
    prompt_format: PromptFormat | None = None
    batch: int = 1 << 20
    streams: bool = True

    def write(self, problems: Sequence[Problem], rules: Rules, seed: int) -> Iterator[tuple[int, Written]]:
        """Answers as the servers give them."""
        stops = (*rules.stops, *(self.prompt_format.stop_strings if self.prompt_format else ()))
        if self.prompt_format is not None:
            self.endpoints.extra |= {"add_special_tokens": False}
        elif rules.format == "model" and rules.prefill:
            self.endpoints.extra |= {"continue_final_message": True, "add_generation_prompt": False}
        asks = [Ask(self._prompt(problem, rules), seed) for problem in problems]
        for index, answer in self.endpoints.answers(asks, temperature=rules.decoding.temperature, top_p=rules.decoding.top_p,
                                                    max_tokens=rules.decoding.max_new_tokens, stops=stops[:MOST_STOPS]):
            cut = stop_position(answer.text, stops)
            yield index, (Written(answer.text, answer.finish_reason, answer.tokens) if cut is None else
                          Written(answer.text[:cut], "stop", answer.tokens))

    def _prompt(self, problem: Problem, rules: Rules) -> str | list[dict[str, str]]:
        text = user_text(problem, rules)
        if self.prompt_format is not None:
            return joined(self.prompt_format.render_prompt([Message("user", text)])) + rules.prefill
        if rules.format == "raw":
            return text + rules.prefill
        return [{"role": "user", "content": text}, *([{"role": "assistant", "content": rules.prefill}] if rules.prefill else [])]

    def facts(self) -> dict[str, Any]:
        """Backend, servers' model, and the settings that they refused."""
        return {"backend": "openai", "model": self.endpoints.model, "servers": len(self.endpoints.urls),
                "refused_settings": list(self.endpoints.dropped), "format": self.prompt_format.reference if self.prompt_format else None}
