"""What may be said of a key and of a server's words: never the key, never a piece of a prompt.

A server's text about an error often repeats what it was sent. It is shown where it explains why nothing at all can be asked (a wrong key,
an unknown model), in one line, without words that share six characters in a row with the key, and not at all where it shares twelve letters
or digits in a row with the prompt. Of a single request that is refused only codes are shown: `invalid_request_error`.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from mft.conversation import Message

KEY_PIECE, PROMPT_PIECE, LONGEST = 6, 12, 200
HIDDEN: Final = "[hidden]"


def codes_of(body: bytes, key: str | None, messages: Sequence[Message]) -> list[str]:
    """`error.type`, `error.code` and `error.param` of a server's answer, where they are names, and not text or a piece of what was sent.

    >>> codes_of(b'{"error": {"message": "too long: print(1)", "type": "invalid_request_error", "code": null}}', None, ())
    ['invalid_request_error']
    """
    error = _error(body)
    found = [error[name] for name in ("type", "code", "param") if isinstance(error.get(name), str)]
    names = [word for word in dict.fromkeys(found) if re.fullmatch(r"[a-z][a-z_.]{1,40}", word)]
    return [word for word in names if not _shares(word, key or "", KEY_PIECE) and not _tells(word, messages)]


def message_of(body: bytes, key: str | None, messages: Sequence[Message]) -> str:
    """The server's own sentence, cut and cleaned as this module says; empty where it must not be shown or there is none."""
    text = error_text(body)
    if _tells(text, messages):
        return ""
    words = [HIDDEN if _shares(word, key or "", KEY_PIECE) or looks_like_a_key(word) else word for word in text.split()]
    line = " ".join(words)
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def error_text(body: bytes) -> str:
    """A server's sentence about an error as it is, not to be shown; empty where there is none."""
    error = _error(body)
    text = error.get("message", error.get("detail"))
    return text if isinstance(text, str) else ""


def looks_like_a_key(word: str) -> bool:
    """True for what begins as keys of well-known services do, shortened with stars or not."""
    return re.search(r"(?:sk|pk|hf|gsk|xai|key|nvapi)[-_][A-Za-z0-9*_-]{6,}|\*{4,}", word) is not None


def _error(body: bytes) -> dict[str, Any]:
    """The object that describes the error, as OpenAI, vLLM or FastAPI lay it out; {} where there is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    error = found.get("error", found)
    return error if isinstance(error, dict) else {"message": error}


def _tells(text: str, messages: Sequence[Message]) -> bool:
    """True where a text gives a piece of a prompt away."""
    prompt, shown = _letters(" ".join(message.content for message in messages)), _letters(text)
    return _shares(shown, prompt, PROMPT_PIECE) or (0 < len(prompt) < PROMPT_PIECE and prompt in shown)


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).lower()


def _shares(text: str, secret: str, length: int) -> bool:
    """True where the two have `length` characters in a row in common."""
    return any(text[start:start + length] in secret for start in range(len(text) - length + 1))
