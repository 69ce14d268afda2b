"""A server of OpenAI's chat interface on loopback that answers by a rule and fails by a schedule. Real HTTP, no model.

In a test:      with FakeEndpoint(reply=rule, faults={"429": 0.1, "reset": 0.05}) as fake: ... fake.url ... fake.charged
As a process:   python tests/synthesis/fake_endpoint.py --port 0 --faults 429=0.1,500=0.1 --reply package.module:rule
                prints {"url": ...} as its first line; GET /stats tells what `stats()` tells.

Faults follow from the seed, the request and how often it came, not from the order of arrival:
    429 rate_limited (Retry-After)   500 server error          slow   an answer after `slow_s`
    hang   no answer at all          half   a truncated body   reset  the connection is reset after the work
    null   content null, charged     json   a page of HTML     no_usage   an answer without token counts
All but 429 and 500 are charged: the work was done. `idempotent`: requests of one Idempotency-Key are charged once.
"""

import argparse
import hashlib
import importlib
import json
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[list[dict[str, str]]], str]
Hook = Callable[[dict[str, Any], Mapping[str, str]], tuple[int, dict[str, str], Any] | None]
FREE = ("429", "500")


def upper(messages: list[dict[str, str]]) -> str:
    """The default rule: the last message in capitals."""
    return messages[-1]["content"].upper()


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def __init__(self, place: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(place, handler)
        self.to_reset: set[int] = set()
        self.open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        if request.fileno() in self.to_reset:
            self.to_reset.discard(request.fileno())
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no news."""


class FakeEndpoint:
    """The server, with what it was asked and what it charged. `hook` may answer a request in its own way: (status, headers, JSON)."""

    def __init__(self, reply: Reply = upper, *, faults: Mapping[str, float] | None = None, seed: int = 0, most_faults: int = 2,
                 latency_s: float = 0.0, slow_s: float = 0.2, hang_s: float = 2.0, retry_after: str = "0.05", idempotent: bool = True,
                 limit: tuple[int, float] | None = None, hook: Hook | None = None, port: int = 0) -> None:
        self.reply, self.faults, self.seed, self.most_faults = reply, dict(faults or {}), seed, most_faults
        self.latency_s, self.slow_s, self.hang_s, self.retry_after = latency_s, slow_s, hang_s, retry_after
        self.idempotent, self.limit, self.hook = idempotent, limit, hook
        self.asked: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.charged: Counter[str] = Counter()
        self.good: Counter[str] = Counter()
        self.faulty: Counter[str] = Counter()
        self.prompt_tokens = self.completion_tokens = self.over_limit = self.busy = self.most_busy = 0
        self._came: Counter[str] = Counter()
        self._recent: deque[float] = deque()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", port), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "FakeEndpoint":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()
        for each in list(self._server.open):
            each.close()

    def stats(self) -> dict[str, Any]:
        """What was asked, answered and charged; keys are the requests' Idempotency-Keys; one without is its own."""
        with self._lock:
            return {"asked": len(self.asked), "charged": dict(self.charged), "good": dict(self.good), "faults": dict(self.faulty),
                    "prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens, "most_busy": self.most_busy,
                    "over_limit": self.over_limit, "busy": self.busy}

    def _fault(self, key: str, came: int) -> str:
        """Which fault, if any, this request meets the `came`-th time; it meets at most `most_faults`."""
        if came > self.most_faults:
            return ""
        draw = int(hashlib.sha256(f"{self.seed} {key} {came}".encode()).hexdigest()[:12], 16) / (1 << 48)
        for name, share in self.faults.items():
            if draw < share:
                return name
            draw -= share
        return ""

    def _turned_away(self) -> bool:
        """True where more requests came in the window than the limit allows."""
        if self.limit is None:
            return False
        most, window_s = self.limit
        now = time.monotonic()
        while self._recent and self._recent[0] <= now - window_s:
            self._recent.popleft()
        if len(self._recent) >= most:
            self.over_limit += 1
            return True
        self._recent.append(now)
        return False

    def answer(self, body: dict[str, Any], key: str, *, with_usage: bool = True, null: bool = False) -> dict[str, Any]:
        """The completion, charged: a token a word, as many as `max_tokens` allows."""
        words = self.reply(body["messages"]).split(" ")
        most = body.get("max_tokens", body.get("max_completion_tokens", 1 << 20))
        usage = {"prompt_tokens": sum(len(message["content"].split(" ")) + 3 for message in body["messages"]),
                 "completion_tokens": min(len(words), most)}
        with self._lock:
            if not (self.idempotent and self.charged[key]):
                self.charged[key] += 1
                self.prompt_tokens += usage["prompt_tokens"]
                self.completion_tokens += usage["completion_tokens"]
        choice = {"index": 0, "message": {"role": "assistant", "content": None if null else " ".join(words[:most])},
                  "finish_reason": "length" if len(words) > most else "stop"}
        if null:
            choice["finish_reason"] = "stop"
        return {"id": "x", "object": "chat.completion", "choices": [choice], **({"usage": usage} if with_usage else {})}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self.send(200, {}, fake.stats())

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                with fake._lock:
                    fake.busy += 1
                    fake.most_busy = max(fake.most_busy, fake.busy)
                try:
                    self.respond(raw)
                finally:
                    with fake._lock:
                        fake.busy -= 1

            def respond(self, raw: bytes) -> None:
                body = json.loads(raw)
                content = hashlib.sha256(raw).hexdigest()
                with fake._lock:
                    key = self.headers.get("Idempotency-Key") or f"unnamed {len(fake.asked)}"
                    fake.asked.append((key, body, dict(self.headers.items())))
                    fake._came[content] += 1
                    fault = fake._fault(content, fake._came[content])
                    turned_away = fake._turned_away()
                    fake.faulty.update([fault] if fault and not turned_away else [])
                if fake.hook and (own := fake.hook(body, self.headers)):     # type: ignore[arg-type]
                    self.send(*own)
                    return
                if turned_away or fault == "429":
                    self.send(429, {"Retry-After": fake.retry_after}, {"error": {"message": "slow down", "type": "rate_limit"}})
                elif fault == "500":
                    self.send(500, {}, {"error": {"message": f"it broke at {body['messages'][-1]['content']}"}})
                else:
                    self.work(body, key, fault)

            def work(self, body: dict[str, Any], key: str, fault: str) -> None:
                time.sleep(fake.latency_s + (fake.slow_s if fault == "slow" else 0.0))
                answer = fake.answer(body, key, with_usage=fault != "no_usage", null=fault == "null")
                if fault == "hang":
                    time.sleep(fake.hang_s)
                    self.close_connection = True
                elif fault == "reset":
                    self.server.to_reset.add(self.connection.fileno())     # type: ignore[attr-defined]
                    self.close_connection = True
                elif fault == "half":
                    self.send(200, {}, answer, cut=True)
                elif fault == "json":
                    self.send(200, {}, "<html>busy</html>")
                else:
                    if fault != "null":
                        with fake._lock:
                            fake.good[key] += 1
                    self.send(200, {}, answer)

            def send(self, status: int, headers: Mapping[str, str], value: Any, *, cut: bool = False) -> None:
                data = (value if isinstance(value, str) else json.dumps(value)).encode()
                self.send_response(status)
                for name, text in headers.items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[:len(data) // 2] if cut else data)
                self.close_connection = self.close_connection or cut

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", default="", help="429=0.1,reset=0.05")
    parser.add_argument("--most-faults", type=int, default=2)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--charge-each", action="store_true", help="Idempotency-Key is not known")
    parser.add_argument("--reply", default="", help="package.module:function")
    given = parser.parse_args()
    module, _, name = given.reply.partition(":")
    rule = getattr(importlib.import_module(module), name) if module else upper
    faults = {each.split("=")[0]: float(each.split("=")[1]) for each in filter(None, given.faults.split(","))}
    with FakeEndpoint(rule, faults=faults, seed=given.seed, most_faults=given.most_faults, latency_s=given.latency,
                      idempotent=not given.charge_each, port=given.port) as fake:
        print(json.dumps({"url": fake.url}), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
