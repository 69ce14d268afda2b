"""One request as the bytes that a server gets, and what its reply means."""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from mft.generation.completion import stop_position
from mft.generation.http import Reply
from mft.hashes import sha256_json
from mft.synthesis.client.amounts import read_usage
from mft.synthesis.client.config import EndpointConfig
from mft.synthesis.client.request import Request
from mft.synthesis.client.secrecy import codes_of, error_text, message_of

MOST_STOPS: Final = 4
"""Stop strings that every server takes; answers are cut here at the others, which only costs their tokens."""

TRANSIENT: Final = frozenset({408, 409, 425})
"""Of the 4xx, what asks for the same request once more; 429 is a matter of its own."""

LATE: Final = frozenset({504, 524})
"""A proxy gave up waiting: the server behind it may have done the work."""

NOTHING_WORKS: Final = frozenset({301, 302, 303, 307, 308, 401, 402, 403, 404, 405})
"""What is wrong for every request alike: the URL, the key, the account, the model's name."""

ALWAYS: Final = frozenset({401, 402})
"""Of these, what ends the run even after answers: the key or the account is not good any more."""


@dataclass(frozen=True, slots=True)
class Written:
    """A whole answer. `usage`: tokens of prompt and answer, where the server counted."""

    text: str
    cut: bool
    usage: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer this time. `usage`: what the server charged all the same; `uncertain`: it may have charged, and does not say."""

    cause: str
    usage: tuple[int, int] | None = None
    uncertain: bool = False


@dataclass(frozen=True, slots=True)
class Declined:
    """The server does not take this request: asking again is of no use. `usage` as in `Failed`; `said`: its own words, where they may be
    shown."""

    detail: str
    usage: tuple[int, int] | None = None
    said: str = ""


def asked(config: EndpointConfig, request: Request) -> dict[str, Any]:
    """All that an answer depends on: its hash is the request's place in the store. Not the server, the key or who asks."""
    settings: dict[str, Any] = {"temperature": request.temperature, "top_p": request.top_p, "seed": config.seed + request.sample}
    return {"model": config.model, "messages": chat_of(request), "max_tokens": request.max_tokens, "stops": list(request.stops),
            "sample": request.sample, "extra": config.extra,
            **{name: value for name, value in settings.items() if name not in config.omit}}


def chat_of(request: Request) -> list[dict[str, str]]:
    """The messages as servers take them."""
    return [{"role": message.role, "content": message.content} for message in request.messages]


def key_of(config: EndpointConfig, request: Request) -> str:
    """sha256 of what is asked."""
    return sha256_json(asked(config, request))


def body_of(config: EndpointConfig, request: Request) -> bytes:
    """The request's JSON."""
    found = asked(config, request)
    own = {name: found[name] for name in ("model", "messages", "temperature", "top_p", "seed") if name in found}
    stops = {"stop": list(request.stops[:MOST_STOPS])} if request.stops and "stop" not in config.omit else {}
    return json.dumps({**own, config.max_tokens_key: request.max_tokens, **stops, **config.extra}).encode()


def read_reply(reply: Reply, request: Request, key: str | None) -> Written | Failed | Declined:
    """What a reply means, but for those that end the whole run (`NOTHING_WORKS`).

    Causes: `rate_limited`, `server_error`, `gateway_timed_out`, `wrong_json`, `no_text` (fields missing, or null), `error_in_answer`.
    """
    if reply.status == 429:
        return Failed("rate_limited")
    if reply.status in LATE:
        return Failed("gateway_timed_out", uncertain=True)
    if reply.status >= 500 or reply.status in TRANSIENT:
        return Failed("server_error")
    if not 200 <= reply.status < 300:
        return Declined(" ".join([f"status {reply.status}", *codes_of(reply.body, key, request.messages)]),
                        said=message_of(reply.body, key, request.messages))
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        return Failed("wrong_json", uncertain=True)
    if not isinstance(found, dict):
        return Failed("wrong_json", uncertain=True)
    usage = read_usage(found)
    if found.get("error") and not found.get("choices"):
        return Failed("error_in_answer", usage, uncertain=usage is None)
    return _read_choice(found, usage, request)


def whole_run_fault(reply: Reply, url: str, key: str | None, config: EndpointConfig, request: Request, *, answered: bool) -> str | None:
    """Why no request at all can be answered, as one message; None where this is a matter of one request, or no fault.

    `answered`: this server has answered before, so that 403 and 404 are about this request.
    """
    place = f"{url}/chat/completions"
    codes = codes_of(reply.body, key, request.messages)
    if reply.status == 429 and "insufficient_quota" in codes:
        return f"{place}: answered 429: the account has no quota left (insufficient_quota)"
    said = message_of(reply.body, key, request.messages)
    if reply.status in (400, 422) and not answered and (name := _unknown_setting(reply.body, config)):
        advice = ("set max_tokens_key: max_completion_tokens" if name == "max_tokens" else
                  f"take {name} out of extra" if name in config.extra else f"add it to omit: [{name}]")
        return f"{place}: does not take '{name}'; {advice}"
    if reply.status not in NOTHING_WORKS or (answered and reply.status not in ALWAYS):
        return None
    what = f"{place}: answered {reply.status}" + (f": {said}" if said else f" ({', '.join(codes)})" if codes else "")
    if reply.status == 401:
        name = config.key_variable
        return what + ("; no key was sent, as key_variable is null" if name is None else f"; the key in {name} is not accepted" if key else
                       f"; {name} is not set, so no key was sent")
    if reply.status in (404, 405):
        return what + "; check urls (up to and with /v1) and model"
    return what + ("; give the URL that it moved to" if reply.status < 400 else "")


def _unknown_setting(body: bytes, config: EndpointConfig) -> str | None:
    """The setting that a server says it does not know."""
    text = error_text(body)
    if not re.search(r"unsupported|unknown|unrecogni[sz]ed|not supported|not permitted|unexpected", text, re.IGNORECASE):
        return None
    names = ("temperature", "top_p", "stop", "seed", "max_tokens", *config.extra)
    return next((name for name in names if re.search(rf"['\"`.]{re.escape(name)}['\"`]", text)), None)


def _read_choice(found: dict[str, Any], usage: tuple[int, int] | None, request: Request) -> Written | Failed | Declined:
    nothing = Failed("no_text", usage, uncertain=usage is None)
    try:
        choice = found["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text = message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError):
        return nothing
    if reason == "content_filter" or message.get("refusal"):
        return Declined("content_filter" if reason == "content_filter" else "refusal", usage)
    if text is None and reason == "length":
        text = ""       # all of max_tokens went into thinking; asked again, it would be paid again
    if not isinstance(text, str):
        return nothing
    cut = stop_position(text, request.stops)
    return Written(text, reason == "length", usage) if cut is None else Written(text[:cut], False, usage)
