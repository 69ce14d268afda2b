"""A protocol: all that stands between a problem and a verdict, as one small value with a hash.

    problem --prompt, format, prefill--> text given to the model --stops, decoding--> completion
            --extraction--> code --joining, imports--> program --timeout--> verdict
"""

import re
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, get_args

from mft.errors import ConfigError
from mft.hashes import sha256_json
from mft.problems.problem import Language

Style = Literal["completion", "instruction"]
Extraction = Literal["none", "fence", "codefuse", "wizardcoder", "evalplus", "block", "sql"]
Joining = Literal["prompt_completion", "completion", "prompt_if_body", "prompt_unless_def"]
Imports = Literal["none", "codefuse", "codefuse+math", "codefuse+ceil-factorial"]

PLACEHOLDERS: Final = ("prompt", "prompt_stripped", "prompt_with_tabs", "language_comment", "tests", "first_test")
"""What `Protocol.prompt` may name in braces."""

CODEFUSE_HEADER: Final = """\
import math
import unittest
import re
import sys
import copy
import datetime
import itertools
import collections
import heapq
import statistics
import functools
import hashlib
import numpy
import numpy as np
import string
from typing import *
from collections import *
"""
"""Source: the Python import helper of codefuse-ai/codefuse-evaluation@09a4f2a, which its judge puts before every program."""

HEADERS: Final[dict[Imports, str]] = {
    "none": "",
    "codefuse": CODEFUSE_HEADER,
    "codefuse+math": CODEFUSE_HEADER + "from math import *\n",
    "codefuse+ceil-factorial": CODEFUSE_HEADER + "from math import ceil, factorial\n",
}


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a completion is drawn. Temperature 0 is greedy, which gives one sample."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        problems = [f"decoding.{name} is {value}; expected {allowed}" for name, value, allowed, good in (
            ("temperature", self.temperature, "0 (greedy) or more", 0 <= self.temperature < float("inf")),
            ("top_p", self.top_p, "above 0 and at most 1", 0 < self.top_p <= 1),
            ("max_new_tokens", self.max_new_tokens, "1 or more", self.max_new_tokens >= 1)) if not good]
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True)
class Protocol:
    """The rules of one score. `completion` problems are code to go on from (HumanEval), `instruction` problems prose (MBPP)."""

    name: str

    style: Style = "completion"
    """The problems that it is for."""

    prompt: str = "{prompt}"
    """The user's message, or with format `raw` the text itself. Placeholders: `PLACEHOLDERS`."""

    format: str = "raw"
    """Prompt format; `raw` is text without turns (BOS where the tokenizer has one), `model` the one the model was trained with."""

    prefill: str = ""
    """Text that the answer begins with, given to the model as the start of its turn; not a part of the completion."""

    stops: tuple[str, ...] = ()
    """Text at which an answer ends, beside the format's own end; ready-made completions are cut there too."""

    extraction: Extraction = "none"
    """How code is taken out of an answer: mft/evaluation/extract.py."""

    joining: Joining = "prompt_completion"
    """How prompt and code become a program: mft/evaluation/programs.py."""

    imports: Imports = "none"
    """Imports put before the program (Python)."""

    timeout_s: float = 3.0
    """Wall time that one program has, in seconds; where it runs out the program is run again, alone, before it counts as failed."""

    languages: tuple[Language, ...] = ("python",)
    """The languages whose problems it is for."""

    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self) -> None:
        problems = [f"protocol '{self.name}': {name} is '{value}'; expected one of {', '.join(get_args(allowed))}"
                    for name, value, allowed in (
            ("style", self.style, Style), ("extraction", self.extraction, Extraction), ("joining", self.joining, Joining),
            ("imports", self.imports, Imports)) if value not in get_args(allowed)]
        unknown = [name for name in re.findall(r"\{(\w+)\}", self.prompt) if name not in PLACEHOLDERS]
        if unknown:
            problems.append(f"protocol '{self.name}': prompt has the placeholder {{{unknown[0]}}}; there are "
                            f"{', '.join('{' + name + '}' for name in PLACEHOLDERS)}")
        if not 0 < self.timeout_s < float("inf"):
            problems.append(f"protocol '{self.name}': timeout_s is {self.timeout_s}; expected seconds above 0")
        if problems:
            raise ConfigError(problems)

    def to_json(self) -> dict[str, Any]:
        """Every rule, the header's text too."""
        return {**self.rules(), "header": HEADERS[self.imports]}

    def rules(self) -> dict[str, Any]:
        """The fields, as a user's YAML gives them."""
        out: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        out["decoding"] = {each.name: getattr(self.decoding, each.name) for each in fields(Decoding)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in out.items()}

    @property
    def judging_sha256(self) -> str:
        """Hash of what turns completions into verdicts: two scores with the same one differ by their completions alone."""
        keys = ("style", "stops", "extraction", "joining", "imports", "header", "timeout_s")
        return sha256_json({key: value for key, value in self.to_json().items() if key in keys})

    @property
    def sha256(self) -> str:
        """Hash of every rule; the name is not a rule."""
        return sha256_json({key: value for key, value in self.to_json().items() if key != "name"})
