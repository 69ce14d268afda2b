"""A client that is killed with signal 9 at any moment, and its next run: nothing that was kept is asked again, nothing is paid twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from client_setup import asks, opened

from mft.synthesis.client.request import Answer
from mft.synthesis.client.store import ANSWERS

HERE = Path(__file__).resolve().parent
CONCURRENCY, REQUESTS = 8, 200
CHILD = """
import sys
from pathlib import Path
from client_setup import asks, opened
with opened(Path(sys.argv[1]), sys.argv[2], concurrency=int(sys.argv[3]), attempts=8) as client:
    client.ask(asks(int(sys.argv[4])))
    print(client.ledger.to_json()["this_run"]["total"]["cached"])
"""


def start_server(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    server = subprocess.Popen([sys.executable, str(HERE / "fake_endpoint.py"), *arguments], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, json.loads(server.stdout.readline())["url"]


def stats(url: str) -> dict:
    with urlopen(f"{url}/stats", timeout=10) as reply:
        return json.load(reply)


def at_rest(url: str) -> dict:
    """What the server has done once it has dealt with all that it was sent."""
    found, before = stats(url), None
    while found["busy"] or found != before:
        time.sleep(0.1)
        found, before = stats(url), found
    return found


def run_and_kill(folder: Path, url: str, draw: random.Random) -> bool:
    """Start a client and kill it after a while that is drawn; False where it was done before."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    before = answers_in(folder)
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder), url, str(CONCURRENCY), str(REQUESTS)], env=environment,
                             stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while child.poll() is None and answers_in(folder) == before and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(draw.uniform(0, 0.25))
    child.send_signal(signal.SIGKILL)
    child.wait()
    return answers_in(folder) < REQUESTS


def answers_in(folder: Path) -> int:
    path = folder / ANSWERS
    return path.read_bytes().count(b'"record":"answer"') if path.is_file() else 0


@pytest.mark.slow
@pytest.mark.law
@pytest.mark.parametrize("knows_keys", [True, False])
def test_killed_again_and_again_no_kept_answer_is_asked_again_and_only_those_in_flight_are_lost(tmp_path: Path, knows_keys: bool) -> None:
    server, url = start_server("--latency", "0.02", "--faults", "500=0.05,reset=0.05,429=0.03", *([] if knows_keys else ["--charge-each"]))
    draw, kills, lost = random.Random(7), 0, 0
    try:
        while run_and_kill(tmp_path, url, draw):
            kills += 1
            kept, good = answers_in(tmp_path), sum(at_rest(url)["good"].values())
            assert good - kept - lost <= CONCURRENCY, "an answer was given out and not kept"
            lost = good - kept
        with opened(tmp_path, url, concurrency=CONCURRENCY, attempts=8) as client:
            answers = client.ask(asks(REQUESTS))
            total = client.ledger.to_json()["all_runs"]["total"]
        found = stats(url)
        print(f"{kills} kills, {lost} answers lost")
    finally:
        server.kill()
        server.wait()
    assert kills >= 3
    assert [answer.text for answer in answers if isinstance(answer, Answer)] == [f"SAY {number}" for number in range(REQUESTS)]
    assert sum(found["good"].values()) <= REQUESTS + kills * CONCURRENCY
    if knows_keys:
        assert set(found["charged"].values()) == {1}
        assert (total["prompt_tokens"], total["completion_tokens"]) == (found["prompt_tokens"], found["completion_tokens"])
    assert len(found["charged"]) == REQUESTS


@pytest.mark.slow
@pytest.mark.law
def test_what_was_in_flight_is_said_and_counts_against_the_budget(tmp_path: Path) -> None:
    server, url = start_server("--latency", "5")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    try:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), url, "4", "10"], env=environment)
        while stats(url)["busy"] < 4:
            time.sleep(0.02)
        child.kill()
        child.wait()
    finally:
        server.kill()
        server.wait()
    program = """
import sys
from pathlib import Path
from mft.log import configure_logging
configure_logging()
from client_setup import opened
with opened(Path(sys.argv[1]), "http://127.0.0.1:9/v1") as client:
    print(client.ledger.to_json()["all_runs"]["total"]["uncertain_tokens"])
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, capture_output=True, text=True, check=True)
    # Four requests of at most 5 bytes + 2 * 64 of the template + 20 of the answer.
    assert done.stdout.strip() == "612"
    assert "requests in flight when the last run was ended: 4; they may have been charged at most 612 tokens (0.0008 USD), and are asked " \
           "again" in done.stderr
