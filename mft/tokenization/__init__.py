"""From conversations to token ids and labels.

`encode` is also the name of the module that holds it, so it is bound here at once (that module imports no tokenizer
library): otherwise `mft.tokenization.encode` would be the function or the module, by what was imported first. The rest is lazy.
"""

from importlib import import_module
from typing import Any

from mft.tokenization.encode import IGNORE_INDEX, TokenizedSample, encode, encode_prompt, encode_rows

_LAZY = {"load_tokenizer": "load", "TextTokenizer": "load", "format_for": "compatibility", "pack": "packing"}

__all__ = ["IGNORE_INDEX", "TextTokenizer", "TokenizedSample", "encode", "encode_prompt", "encode_rows", "format_for",
           "load_tokenizer", "pack"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"mft.tokenization.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'mft.tokenization' has no attribute {name!r}")
