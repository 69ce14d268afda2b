"""What a person may choose about quantising: a matrix of jobs, their calibration rows, what their quality is measured on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from mft.config.model import StrictModel

MAIN = "main"
"""The folder, or branch, of the first job of a matrix."""

FEWEST_ROWS = 128
"""Calibration rows below which a Hessian of thousands of inputs is too poorly known to be used (GPTQ's own experiments: 128 rows of 2048
tokens, arXiv:2210.17323)."""

Bits = Literal[2, 3, 4, 8]
GroupSize = Literal[-1, 16, 32, 64, 128, 256, 512, 1024]


class GptqJob(StrictModel):
    """GPTQ (arXiv:2210.17323) through gptqmodel, symmetric, block by block in the order of the model."""

    method: Literal["gptq"] = "gptq"
    bits: Bits
    """3 bits load in gptqmodel and transformers; of servers expect 4 and 8 alone."""

    group_size: GroupSize = 128
    """Inputs that share a scale; -1: all of a row. Smaller is larger and more exact."""

    desc_act: bool = True
    """Act-order: inputs with large activations are rounded first. More exact; the kernels of some engines are slower with it."""

    damp: float = Field(0.1, gt=0, lt=1)
    """Share of the Hessian's mean diagonal that is added to it. gptqmodel raises it by 0.01 where the Hessian cannot be inverted otherwise;
    what was used is recorded."""

    @property
    def label(self) -> str:
        """`gptq-4bit-128g-actorder_True`, as the branches of public releases are called."""
        return f"gptq-{self.bits}bit-{self.group_size}g-actorder_{self.desc_act}"


class NearestJob(StrictModel):
    """Each weight rounded to the nearest step, without data: what GPTQ is to be compared with. Same layout, loads in the same engines."""

    method: Literal["rtn"]
    bits: Bits
    group_size: GroupSize = 128

    @property
    def label(self) -> str:
        """`rtn-4bit-128g`."""
        return f"rtn-{self.bits}bit-{self.group_size}g"


class Nf4Job(StrictModel):
    """bitsandbytes' 4-bit NormalFloat, without data: what a QLoRA base is held in. Loads in plain transformers with bitsandbytes."""

    method: Literal["nf4"]
    double_quant: bool = True

    @property
    def label(self) -> str:
        """`bnb-nf4` or `bnb-nf4-plain`."""
        return "bnb-nf4" if self.double_quant else "bnb-nf4-plain"


class Int8Job(StrictModel):
    """bitsandbytes' LLM.int8() (arXiv:2208.07339), without data. Loads in plain transformers with bitsandbytes."""

    method: Literal["int8"]

    @property
    def label(self) -> str:
        """`bnb-int8`."""
        return "bnb-int8"


class AwqJob(StrictModel):
    """AWQ (arXiv:2306.00978) through gptqmodel, 4 bits. It needs a CUDA device."""

    method: Literal["awq"]
    group_size: Literal[32, 64, 128] = 128

    @property
    def label(self) -> str:
        """`awq-4bit-128g`."""
        return f"awq-4bit-{self.group_size}g"


class GgufJob(StrictModel):
    """A GGUF file through llama.cpp's own converter; MFT_LLAMA_CPP names a checkout of it."""

    method: Literal["gguf"]
    type: Literal["f16", "bf16", "q8_0"] = "q8_0"
    """What `convert_hf_to_gguf.py --outtype` takes; smaller types are made of the file by `llama-quantize`."""

    @property
    def label(self) -> str:
        """`gguf-q8_0`."""
        return f"gguf-{self.type}"


def _method(job: Any) -> str:
    return str(job.get("method", "gptq") if isinstance(job, dict) else getattr(job, "method", "gptq"))


Job = Annotated[Annotated[GptqJob, Tag("gptq")] | Annotated[NearestJob, Tag("rtn")] | Annotated[Nf4Job, Tag("nf4")]
                | Annotated[Int8Job, Tag("int8")] | Annotated[AwqJob, Tag("awq")] | Annotated[GgufJob, Tag("gguf")],
                Discriminator(_method)]
"""One entry of a matrix, by its `method`; gptq where none is named."""

CALIBRATED = ("gptq", "awq")
"""Methods that read calibration rows."""


class CalibrationOptions(StrictModel):
    """Rows that GPTQ measures activations on, and others that it never sees."""

    rows: int = Field(FEWEST_ROWS, ge=FEWEST_ROWS)
    """Calibration rows, taken by the hash of seed and id."""

    max_tokens: int = Field(4096, ge=16, le=4096)
    """A longer row is left out and counted; none is cut."""

    held_out_rows: int = Field(64, ge=1)
    """Rows that perplexity and KL are measured on."""

    seed: int = 1234
    decontaminate: tuple[Annotated[str, Field(min_length=1)], ...] = ("humaneval",)
    """Benchmarks whose problems may not be among the rows: `humaneval`, or problem files as in a recipe's step `decontaminate`; [] for
    none. Not looked for again in a built folder whose recipe has that step."""


class QualityOptions(StrictModel):
    """What each job's model is compared with the unquantised one on, beside the held-out rows."""

    texts: dict[str, str] = Field(default_factory=dict)
    """Name -> a text file (`.txt`, `.txt.gz`, or JSON lines with `text`), or `stdlib`, the running Python's modules."""

    windows: int = Field(32, ge=1)
    """Windows of each text."""

    window_tokens: int = Field(512, ge=16)
    """Length of a window. Perplexity falls with it, so compare like with like."""


class QuantizeOptions(StrictModel):
    """A matrix of jobs over one model."""

    jobs: tuple[Job, ...] = Field(min_length=1)
    """The first is the folder, and branch, `main`; others are called by their label."""

    calibration: CalibrationOptions = Field(default_factory=CalibrationOptions)
    quality: QualityOptions | None = Field(default_factory=QualityOptions)
    """null: nothing is measured."""

    git: bool = False
    """Also a bare repository `matrix.git` in the output, one branch for each job."""

    @model_validator(mode="after")
    def _each_once(self) -> "QuantizeOptions":
        labels = [job.label for job in self.jobs]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"jobs: {', '.join(twice)}: stands there more than once")
        return self

    @property
    def names(self) -> list[str]:
        """The folder of each job: `main`, then labels."""
        return names_of(self.jobs)

    @property
    def needs_rows(self) -> bool:
        """Whether rows must be read at all."""
        return self.quality is not None or any(job.method in CALIBRATED for job in self.jobs)


def names_of(jobs: Sequence[Job]) -> list[str]:
    """`main`, then the label of each further job."""
    return [MAIN, *(job.label for job in jobs[1:])]


def settings_of(job: Job) -> dict[str, Any]:
    """`label`, `method`, `bits`, `group_size`, `desc_act`, `damp` as a table has them; None where a method has no such thing."""
    bits = {"nf4": 4, "int8": 8, "awq": 4}.get(job.method, getattr(job, "bits", None))
    return {"label": job.label, "method": job.method, "bits": bits,
            **{key: getattr(job, key, None) for key in ("group_size", "desc_act", "damp")}}


def absolute_texts(quality: QualityOptions, beside: Path) -> QualityOptions:
    """The same with the paths of its texts relative to nowhere."""
    return quality.model_copy(update={"texts": {
        name: place if place == "stdlib" else str((beside / place).absolute()) for name, place in quality.texts.items()}})
