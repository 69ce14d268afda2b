"""Which prompt formats there are, by name."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from mft.errors import FormatError
from mft.formats.alpaca import Alpaca
from mft.formats.base import PromptFormat
from mft.formats.chatml import ChatML
from mft.formats.codefuse import CodeFuse, CodeFuse4Bit, CodeFuse2023, CodeFuseCard
from mft.formats.codellama70b import CodeLlama70B
from mft.formats.fim import Fim
from mft.formats.llama2 import Llama2
from mft.formats.mftcoder import MftCoder
from mft.formats.raw import Raw
from mft.formats.ziya import Ziya

FORMATS: Final[dict[str, type[PromptFormat]]] = {kind.name: kind for kind in (
    CodeFuse, CodeFuse2023, CodeFuse4Bit, CodeFuseCard, MftCoder, Ziya, CodeLlama70B, Llama2, ChatML, Alpaca, Raw, Fim)}
JINJA: Final = "jinja"


def names() -> list[str]:
    """The names that `get` knows, in the order in which messages list them."""
    return [*FORMATS, JINJA]


def get_reference(name: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """What stands for a format beside a trained model: its name, or what the user's YAML says.

    Raises:
        FormatError, ConfigError: the YAML cannot be read.
    """
    if isinstance(name, str) and name.endswith((".yaml", ".yml")):
        from mft.formats.user import read_format

        return read_format(Path(name))
    return name if isinstance(name, str) else dict(name)


def get(name: str | Mapping[str, Any], bos: str = "<s>", eos: str = "</s>", control: Mapping[str, str] | None = None,
        template: str = "") -> PromptFormat:
    """The prompt format of this name, for a tokenizer with these control tokens.

    `name` may also be a YAML file that a user wrote (a path that ends in .yaml), or what such a file says. `control` maps the
    vocabulary's control tokens to how they are found in text; `template` is the tokenizer's own, for `jinja`.

    Raises:
        FormatError: there is no such format; the message lists those there are. ConfigError: mistakes in a user's YAML.
    """
    if isinstance(name, Mapping) or name.endswith((".yaml", ".yml")):
        from mft.formats.user import make_format, read_format

        return make_format(name if isinstance(name, Mapping) else read_format(Path(name)), bos, eos, control)
    if name == JINJA:
        from mft.formats.jinja import JinjaFormat

        return JinjaFormat(bos, eos, control, template)
    if name in FORMATS:
        return FORMATS[name](bos, eos, control)
    close = get_close_matches(name, names(), n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    raise FormatError(f"'{name}' is not a prompt format; expected one of {', '.join(names())}, or a YAML file{hint}")
