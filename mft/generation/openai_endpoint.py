"""Completions from OpenAI-compatible servers: vLLM, SGLang, llama.cpp, or a hosted API. Standard library only.

Requests go to `URL/completions` with the prompt as text, or to `URL/chat/completions` with messages, to several servers in turn. A server
that a request cannot reach, or that answers 429 or 5xx, is asked again after a pause.
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Final

from mft.errors import ModelError
from mft.generation.http import Connections, Reply, TransferFault, api_key

logger = logging.getLogger(__name__)

PAUSES_S: Final = (0.5, 2.0, 8.0)
"""Before the second, third and fourth attempt at a request."""

VLLM_NEUTRAL: Final[dict[str, Any]] = {"top_k": -1, "repetition_penalty": 1.0}
"""vLLM fills what a request leaves out from the model's generation_config.json; these ask for nothing. A server that does not know them
answers 400, and they are left out from then on."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Text that a server wrote; `finish_reason` as it says (`stop`, `length`)."""

    text: str
    finish_reason: str
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: `prompt` is text, or the messages of a chat."""

    prompt: str | Sequence[dict[str, str]]
    seed: int


@dataclass(slots=True)
class Endpoints:
    """Servers of one model. `urls` end in `/v1`; `key_variable` names the environment variable that holds the API key, if one is needed."""

    urls: Sequence[str]
    model: str
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    """Requests under way at a time, for each server."""

    timeout_s: float = 600.0
    extra: dict[str, Any] = field(default_factory=lambda: dict(VLLM_NEUTRAL))
    """Sent with every request."""

    dropped: list[str] = field(default_factory=list)
    """Those of `extra` that the servers refused."""

    connections: Connections = field(default_factory=Connections, repr=False)

    def answers(self, asks: Sequence[Ask], *, temperature: float, top_p: float, max_tokens: int,
                stops: Sequence[str]) -> Iterator[tuple[int, Answer]]:
        """(index of the request, answer), as they come.

        Raises:
            ModelError: a server cannot be reached, refuses, or answers something else than a completion.
        """
        body = {"model": self.model, "temperature": temperature, "top_p": top_p, "max_tokens": max_tokens,
                **({"stop": list(stops)} if stops else {})}
        workers = self.concurrency * len(self.urls)
        with ThreadPoolExecutor(workers) as pool:
            waiting = iter(enumerate(asks))
            running: dict[Future[Answer], int] = {}
            try:
                while True:
                    while len(running) < workers and (following := next(waiting, None)):
                        index, ask = following
                        running[pool.submit(self._answer, self.urls[index % len(self.urls)], ask, body)] = index
                    if not running:
                        return
                    for done in wait(running, return_when=FIRST_COMPLETED).done:
                        yield running.pop(done), done.result()
            finally:
                for future in running:
                    future.cancel()
                self.connections.close()

    def _answer(self, url: str, ask: Ask, body: dict[str, Any]) -> Answer:
        chat = not isinstance(ask.prompt, str)
        place = f"{url.rstrip('/')}/{'chat/completions' if chat else 'completions'}"
        request = {**body, "seed": ask.seed, "messages" if chat else "prompt": ask.prompt if not chat else list(ask.prompt)}
        reply = self._post(place, request)
        try:
            choice = reply["choices"][0]
            text = choice["message"]["content"] if chat else choice["text"]
            tokens = (reply.get("usage") or {}).get("completion_tokens")
            return Answer(text or "", str(choice.get("finish_reason") or "stop"), tokens)
        except (KeyError, IndexError, TypeError) as error:
            raise ModelError(f"{place}: the answer is no completion: {json.dumps(reply)[:300]}") from error

    def _post(self, place: str, request: dict[str, Any]) -> dict[str, Any]:
        for pause in (*PAUSES_S, None):
            sent = {**request, **{key: value for key, value in self.extra.items() if key not in self.dropped}}
            try:
                reply = self._once(place, sent)
            except TransferFault as fault:
                if pause is None:
                    raise ModelError(f"{place}: cannot be reached: {fault}") from fault
            else:
                if reply.status == 200:
                    return _read(place, reply)
                said = reply.body.decode("utf-8", "replace")[:500]
                if reply.status in (400, 422) and (unknown := [key for key in sent if key in self.extra and key in said]):
                    logger.warning("%s does not take %s; left out from now on", place, ", ".join(unknown))
                    self.dropped += [key for key in unknown if key not in self.dropped]
                    continue
                if pause is None or reply.status not in (408, 429, 500, 502, 503, 504):
                    raise ModelError(f"{place}: answered {reply.status}: {said}")
            time.sleep(pause or 0)
        raise ModelError(f"{place}: refuses every setting of {', '.join(self.extra)}")

    def _once(self, place: str, body: dict[str, Any]) -> Reply:
        key = api_key(self.key_variable)
        return self.connections.post(place, json.dumps(body).encode(), {"Authorization": f"Bearer {key}"} if key else {}, self.timeout_s)


def _read(place: str, reply: Reply) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(reply.body)
    except ValueError as error:
        raise ModelError(f"{place}: the answer is not JSON") from error
    return found
