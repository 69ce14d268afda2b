"""The protocols by name, and a user's own from YAML.

Sources of the rules: openai/human-eval@6d43fb9; codefuse-ai/codefuse-evaluation@09a4f2a (`processor/base.py`, `evaluation.py`);
nlpxucan/WizardLM@cd4b4cc (`WizardCoder/src/humaneval_gen.py`); evalplus/evalplus@26d6d00 (`provider`, `sanitize.py`); the card of
Ziya-Coding-34B-v1.0, which gives the prompt alone: its extraction, joining and imports are ours. `evalplus_base` is what evalplus does with
a model that has no chat template. `completion` and, for MBPP, `openai`
(the prompt of bigcode-evaluation-harness' `mbpp`: a docstring with the text and the first assertion) as well.
"""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from mft.config.load import load_config, validate
from mft.config.model import StrictModel
from mft.config.yaml import Document
from mft.errors import ConfigError
from mft.evaluation.protocol import Decoding, Extraction, Imports, Joining, Protocol, Style
from mft.problems.problem import Language

ALL_LANGUAGES: Final[tuple[Language, ...]] = ("python", "cpp", "go", "java", "javascript", "rust")

WIZARDCODER_HEAD: Final = ("Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\n"
                           "### Instruction:\nCreate a Python script for this problem:\n")
EVALPLUS_USER: Final = ("Please provide a self-contained Python script that solves the following problem in a markdown code block:\n"
                        "```\n{prompt_stripped}\n```\n")
EVALPLUS_PREFILL: Final = ("Below is a Python script with a self-contained function that solves the problem and passes corresponding "
                           "tests:\n```python\n")
PROSE_WITH_TESTS: Final = "{prompt}Your code should satisfy these tests:\n{tests}"
DOCSTRING: Final = '"""\n{prompt}\n{first_test}\n"""\n'

COMPLETION_RULES: Final[tuple[Protocol, ...]] = (
    Protocol("openai", stops=("\nclass ", "\ndef ", "\n# ", "\nif ", "\nprint")),
    Protocol("codefuse", prompt="{language_comment}\n{prompt}", format="codefuse", extraction="codefuse", joining="prompt_unless_def",
             imports="codefuse", timeout_s=120.0),
    Protocol("ziya", prompt="Please Complete the given function below according to the docstring: \n{prompt}", format="ziya",
             extraction="fence", joining="prompt_if_body"),
    Protocol("wizardcoder", prompt=WIZARDCODER_HEAD + "{prompt_with_tabs}\n\n### Response:",
             extraction="wizardcoder"),
    Protocol("evalplus", prompt=EVALPLUS_USER, format="model", prefill=EVALPLUS_PREFILL, stops=("\n```",), extraction="evalplus",
             joining="completion", timeout_s=60.0),
    Protocol("evalplus_base", extraction="evalplus", timeout_s=60.0,
             stops=("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert", "\nif __name__", "\nprint(")),
    Protocol("completion", languages=ALL_LANGUAGES),
)
"""For problems that are code to go on from."""

INSTRUCTION_RULES: Final[tuple[Protocol, ...]] = (
    Protocol("openai", "instruction", prompt=DOCSTRING, joining="completion",
             stops=("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```")),
    Protocol("codefuse", "instruction", prompt=PROSE_WITH_TESTS, format="codefuse", extraction="fence", joining="completion",
             imports="codefuse", timeout_s=120.0),
    Protocol("ziya", "instruction", prompt=PROSE_WITH_TESTS, format="ziya", extraction="fence", joining="completion"),
    Protocol("wizardcoder", "instruction", extraction="wizardcoder", joining="completion",
             prompt=WIZARDCODER_HEAD + "{prompt} Your code should pass these tests:\n\n{tests}\n\n### Response:"),
    Protocol("evalplus", "instruction", prompt=EVALPLUS_USER, format="model", prefill=EVALPLUS_PREFILL, stops=("\n```",),
             extraction="evalplus", joining="completion", timeout_s=60.0),
    Protocol("evalplus_base", "instruction", prompt="{prompt}", joining="completion", extraction="evalplus", timeout_s=60.0,
             stops=('\n"""', "\nassert", "\nif __name__", "\nprint(")),
    Protocol("completion", "instruction", prompt=DOCSTRING, joining="completion"),
)
"""For problems in prose, whose solution stands by itself."""

SQL: Final = Protocol("sql", "instruction", format="model", extraction="sql", joining="completion", timeout_s=10.0, languages=("sql",))
"""For questions to a database."""

RULES: Final[Mapping[tuple[str, Style], Protocol]] = {
    (rule.name, rule.style): rule for rule in (*COMPLETION_RULES, *INSTRUCTION_RULES, SQL)}


def names() -> list[str]:
    """The protocols that mft brings, in the order in which messages list them."""
    return [*(rule.name for rule in COMPLETION_RULES), SQL.name]


def protocol(name: str, style: Style = "completion", changes: Mapping[str, Any] | None = None) -> Protocol:
    """The protocol of this name for problems of this style, or the one in a YAML file (a path that ends in .yaml), with `changes` of rules.

    Raises:
        ConfigError: there is no such protocol, it is for the other style, a mistake in the YAML or in `changes`.
    """
    if name.endswith((".yaml", ".yml")):
        found = read_protocol(Path(name))
        if found.style != style:
            raise ConfigError([f"{name}: style is '{found.style}', and these are {style} problems"])
    elif (name, style) in RULES:
        found = RULES[name, style]
    else:
        close = get_close_matches(name, names(), n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ConfigError([f"'{name}' is not a protocol; expected one of {', '.join(names())}, or a YAML file{hint}"])
    return changed(found, changes) if changes else found


def changed(rules: Protocol, changes: Mapping[str, Any]) -> Protocol:
    """The protocol with other rules; its name says which: `completion, imports=codefuse`. Those of `decoding` are given by their own names.

    Raises:
        ConfigError: no such rule, or a value that it cannot have.
    """
    known = {each for each in ProtocolFile.model_fields if each not in ("name", "style", "languages", "decoding")}
    drawn = set(DecodingRules.model_fields)
    if unknown := [key for key in changes if key not in known | drawn]:
        close = get_close_matches(unknown[0], known | drawn, n=1)
        raise ConfigError([f"'{unknown[0]}' is no rule of a protocol" + (f"; did you mean '{close[0]}'?" if close else "")
                           + f"; rules: {', '.join(sorted(known | drawn))}"])
    before = rules.rules()
    after = {**before, **{key: value for key, value in changes.items() if key in known},
             "decoding": {**before["decoding"], **{key: value for key, value in changes.items() if key in drawn}}}
    made = _protocol(validate(ProtocolFile, Document("rules of the protocol", after)))
    different = [f"{key}={value}" for key, value in changes.items()
                 if made.rules().get(key, made.rules()["decoding"].get(key)) != before.get(key, before["decoding"].get(key))]
    return replace(made, name=", ".join([rules.name, *different]))


class DecodingRules(StrictModel):
    """As `Decoding`."""

    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_new_tokens: int = Field(512, ge=1)
    seed: int = 0


class ProtocolFile(StrictModel):
    """A user's protocol: the fields of `Protocol`, each with its default."""

    name: str = Field(min_length=1)
    style: Style = "completion"
    prompt: str = "{prompt}"
    format: str = "raw"
    prefill: str = ""
    stops: list[str] = Field(default_factory=list)
    extraction: Extraction = "none"
    joining: Joining = "prompt_completion"
    imports: Imports = "none"
    timeout_s: float = Field(3.0, gt=0)
    languages: list[Language] = Field(["python"], min_length=1)
    decoding: DecodingRules = Field(default_factory=DecodingRules)


def read_protocol(path: Path) -> Protocol:
    """The protocol that a YAML file describes.

    Raises:
        ConfigError: every mistake, with its line.
    """
    rules = load_config(ProtocolFile, path)
    try:
        return _protocol(rules)
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error


def _protocol(rules: ProtocolFile) -> Protocol:
    return Protocol(**{**rules.model_dump(exclude={"decoding"}), "stops": tuple(rules.stops), "languages": tuple(rules.languages)},
                    decoding=Decoding(**rules.decoding.model_dump()))
