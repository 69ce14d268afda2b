"""Prompt formats of other tools that are none of ours by name, written as a format of a user's own.

Each text was read in the source that its docstring names; `{bos}` and `{eos}` are put in by id.
"""

from typing import Any, Final

LLAMA3: Final[dict[str, Any]] = {
    "name": "llama3", "bos": True,
    "system": {"before": "<|start_header_id|>system<|end_header_id|>\n\n", "after": "<|eot_id|>"},
    "user": {"before": "<|start_header_id|>user<|end_header_id|>\n\n", "after": "<|eot_id|>"},
    "assistant": {"before": "<|start_header_id|>assistant<|end_header_id|>\n\n", "end": "<|eot_id|>"},
    "control": ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
}
"""Meta's Llama 3, as its model card draws it."""

LLAMAFACTORY_ALPACA: Final[dict[str, Any]] = {
    "name": "alpaca-llamafactory",
    "preamble": "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n",
    "system_place": "preamble", "user": {"before": "### Instruction:\n", "after": "\n\n"},
    "assistant": {"before": "### Response:\n", "then": "\n\n"},
    "tags": ["### Instruction:", "### Response:"], "stop_strings": ["### Instruction:"],
}
"""LLaMA-Factory's `alpaca`: no BOS, no heading for an input. Source: `src/llamafactory/data/template.py`."""

LLAMAFACTORY_LLAMA2: Final[dict[str, Any]] = {
    "name": "llama2-llamafactory", "system": {"before": "<<SYS>>\n", "after": "\n<</SYS>>\n\n"}, "system_place": "first_user",
    "user": {"before": "{bos}[INST] "}, "assistant": {"before": " [/INST]"},
    "tags": ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"], "stop_strings": ["[INST]"],
}
"""LLaMA-Factory's `llama2`, without the spaces around an answer that Meta's code has. Source: as above."""

LLAMAFACTORY_DEFAULT: Final[dict[str, Any]] = {
    "name": "default-llamafactory", "system": {"before": "System: ", "after": "{eos}\n"}, "user": {"before": "Human: ", "after": "{eos}\n"},
    "assistant": {"before": "Assistant:", "then": "\n"},
}
"""LLaMA-Factory's `default`. Source: as above."""

ALPACA_NEWLINE: Final[dict[str, Any]] = {"extends": "alpaca", "newline": True}
"""axolotl's dataset type `alpaca`. Source: `src/axolotl/prompters.py`."""

LLAMAFACTORY: Final[dict[str, str | dict[str, Any]]] = {
    "chatml": "chatml", "qwen3_nothink": "chatml", "yi": "chatml", "llama3": LLAMA3, "alpaca": LLAMAFACTORY_ALPACA,
    "llama2": LLAMAFACTORY_LLAMA2, "default": LLAMAFACTORY_DEFAULT,
}
"""Templates of LLaMA-Factory that have an equal here; the others become `jinja`, the tokenizer's own template."""

AXOLOTL: Final[dict[str, str | dict[str, Any]]] = {"chatml": "chatml", "llama3": {**LLAMA3, "strip": True}}
"""Chat templates of axolotl that have an equal here; its llama3 strips the contents."""


def role_markers(system: str, user: str, assistant: str) -> dict[str, Any]:
    """MFTCoder's format with other markers: a newline ends every content, the answer's is trained."""
    return {"name": "mftcoder-role-markers", "system": {"before": system, "after": "\n"}, "user": {"before": user, "after": "\n"},
            "assistant": {"before": assistant, "tail": "\n", "then": "\n"}}


def instruction_template(with_input: str | None, without_input: str | None, preamble: str) -> dict[str, Any] | None:
    """A template with `{instruction}` (and `{input}`) as a format; None where the two versions do not fit one format."""
    plain = without_input or with_input or ""
    if plain.count("{instruction}") != 1 or "{input}" in plain:
        return None
    before, _, after = plain.partition("{instruction}")
    layout: dict[str, Any] = {"name": "instruction-template", "preamble": preamble, "user": {"before": before},
                              "assistant": {"before": after}}
    if with_input and "{input}" in with_input:
        head, _, rest = with_input.partition("{instruction}")
        between, _, tail = rest.partition("{input}")
        if (head, tail) != (before, after) or "{" in between:
            return None
        layout["input"] = between
    return layout
