"""A planted key, prompt and answer are looked for in all that the client says and writes, while servers repeat what they were sent."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from client_setup import opened
from fake_endpoint import FakeEndpoint, Hook

from mft.config.load import parse_config
from mft.config.model import StrictModel
from mft.conversation import Message
from mft.errors import ConfigError, ModelError
from mft.synthesis.client.config import ClientConfig
from mft.synthesis.client.secrecy import codes_of, message_of
from mft.synthesis.client.store import ANSWERS

KEY, PROMPT, ANSWER = "sk-PLANTEDKEY-8f3a91c27d", "class PlantedQuestion: x = 41", "def grown_reply(y): return y - 17"
HERE = Path(__file__).resolve().parent

CHILD = f"""
import sys, traceback
from pathlib import Path
from mft.log import configure_logging
configure_logging(2, debug=True)
import logging
logging.getLogger().setLevel(logging.DEBUG)      # of the libraries too
from client_setup import opened
from mft.conversation import Message
from mft.synthesis.client.request import Request
requests = [Request("answer", (Message("user", {PROMPT!r} + f" # {{number}}"),)) for number in range(3)]
for folder, url in zip(sys.argv[1::2], sys.argv[2::2]):
    with opened(Path(folder), url, attempts=2, timeout_s=1.0) as client:
        try:
            results = client.ask(requests)
            for result in results:
                print(Path(folder).name, getattr(result, "detail", type(result).__name__))
        except Exception:
            print(Path(folder).name, "raised")
            traceback.print_exc()
        print(client.ledger.to_json(), client.ledger.table(), client, sep="\\n")
"""


def echo(status: int, *, text: bool = False) -> Hook:
    """A server that answers with all it was sent, in every field that a client could show."""
    def hook(body: dict, headers: Mapping[str, str]) -> tuple:
        sent = f"{headers['Authorization']} {headers['Authorization'][7:]} {body['messages'][0]['content']}"
        told = dict.fromkeys(("message", "type", "code", "param", "detail"), sent)
        return status, {"Location": sent.replace("\n", " "), "X-Echo": sent}, sent if text else {"error": told, "detail": sent}
    return hook


def long_pause(body: dict, headers: Mapping[str, str]) -> tuple:
    return 429, {"Retry-After": "5000"}, echo(429)(body, headers)[2]      # type: ignore[index]


CASES: dict[str, dict] = {
    **{f"echo-{status}": {"hook": echo(status)} for status in (200, 301, 400, 401, 403, 404, 422, 500)}, "echo-429": {"hook": long_pause},
    **{f"text-{status}": {"hook": echo(status, text=True)} for status in (200, 400, 401, 404, 503)},
    "well": {}, "half": {"faults": {"half": 1.0}}, "null": {"faults": {"null": 1.0}}, "reset": {"faults": {"reset": 1.0}},
    "hang": {"faults": {"hang": 1.0}}}


class Outputs(NamedTuple):
    """What one process wrote that went through all cases."""

    folder: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    folder = tmp_path_factory.mktemp("secrets")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]), "OPENAI_API_KEY": KEY}
    with ExitStack() as stack:
        fakes = {name: stack.enter_context(FakeEndpoint(lambda messages: ANSWER, **settings)) for name, settings in CASES.items()}
        command = [sys.executable, "-c", CHILD, *(each for name, fake in fakes.items() for each in (str(folder / name), fake.url))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert all(headers["Authorization"] == f"Bearer {KEY}" for fake in fakes.values() for _, _, headers in fake.asked)
    return Outputs(folder, done.stdout, done.stderr)


def pieces(secret: str) -> set[str]:
    """What would give a secret away: any eight characters of it in a row."""
    return {secret[start:start + 8] for start in range(len(secret) - 7)}


def told(text: str, secret: str) -> list[str]:
    return sorted(piece for piece in pieces(secret) if piece in text)


def test_no_log_exception_or_ledger_tells_key_prompt_or_answer(outputs: Outputs) -> None:
    assert all(name in outputs.out for name in CASES)
    assert outputs.out.count("raised") >= 5
    assert " D mft.synthesis" in outputs.err
    for secret in (KEY, PROMPT, ANSWER):
        assert told(outputs.out + outputs.err, secret) == []


def test_no_file_holds_key_or_prompt_and_answers_lie_in_one_file_alone(outputs: Outputs) -> None:
    files = [path for path in outputs.folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {ANSWERS}
    assert len(files) == len(CASES)
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert told(text, KEY) == told(text, PROMPT) == []
    assert json.dumps(ANSWER)[1:-1] in (outputs.folder / "well" / ANSWERS).read_text()


def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-first\nsk-second")
    with pytest.raises(ModelError) as raised, opened(tmp_path, "http://127.0.0.1:9/v1"):
        pass
    assert str(raised.value) == "OPENAI_API_KEY: holds characters that no key has, a line break or quotes of a text editor; set it anew"


class Project(StrictModel):
    client: ClientConfig


@pytest.mark.parametrize(("line", "message"), [
    ("key_variable: sk-abcdef123456", "key_variable: is not the name of an environment variable in capitals"),
    ("key_variable: hf_AbCdEf123456", "key_variable: is not the name of an environment variable in capitals"),
    ("key_variable: AKIAABCDEF123456ABCD", "key_variable: is not the name of an environment variable in capitals"),
    ("urls: ['https://user:abcdef123456@host/v1']", "urls: URL 1 holds a user name, a query or a fragment"),
    ("urls: ['https://host/v1?key=abcdef123456']", "urls: URL 1 holds a user name, a query or a fragment"),
    ("urls: [abcdef123456]", "urls: URL 1 does not begin with http:// or https:// and a host"),
    ("extra: {api_key: abcdef123456}", "extra: may not hold api_key; a key comes from the environment variable"),
    ("extra: {n: 2}", "extra: may not hold n; the request says it"),
    ("api_key: abcdef123456", "api_key: not a known key"),
    ("budget: {cost: 1}", "client: budget.cost needs price"),
    ("budget: {}", "budget: names no limit; give cost, tokens or requests"),
    ("urls: ['http://a/v1', 'http://a/v1/']", "urls: the same URL stands twice")])
def test_a_mistake_in_the_config_is_told_without_repeating_a_key(line: str, message: str) -> None:
    text = "client:\n  type: endpoint\n  model: m\n" + ("" if line.startswith("urls") else "  urls: [http://a/v1]\n") + f"  {line}\n"
    with pytest.raises(ConfigError) as raised:
        parse_config(Project, text)
    shown = f"{raised.value} {raised.value.__cause__}"
    assert message in shown
    assert "ABCDEF123456" not in shown.upper()


def test_a_servers_words_are_shown_where_they_repeat_nothing() -> None:
    chat = (Message("user", "Write a function that adds two numbers."),)
    said = json.dumps({"error": {"message": "The model `m` does not exist", "type": "not_found_error", "code": 404}}).encode()
    assert message_of(said, KEY, chat) == "The model `m` does not exist"
    assert codes_of(said, KEY, chat) == ["not_found_error"]
    keyed = json.dumps({"error": {"message": "Incorrect API key provided: sk-PLANT*****7d. See the page."}}).encode()
    assert message_of(keyed, KEY, chat) == "Incorrect API key provided: [hidden] See the page."
    prompted = json.dumps({"error": {"message": "bad input: a FUNCTION that\\nadds"}}).encode()
    assert message_of(prompted, KEY, chat) == ""
    assert len(message_of(json.dumps({"message": "x y " * 200}).encode(), KEY, chat)) == 203
    assert message_of(b"<html>", KEY, chat) == ""
