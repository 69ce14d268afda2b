"""The hub, played by a server of this machine: a mirror, one that knows no such model, one that never answers."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from doctor.doctor_command import QUICKSTART, doctor

NAME = "somebody/code-model"
FILES = [{"rfilename": "config.json", "size": 600}, {"rfilename": "model.safetensors", "size": 13_500_000_000}]


@contextmanager
def hub(status, body, wait_s=0.0):
    """Yield (the address of a server that gives this answer, the paths it was asked for)."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            time.sleep(wait_s)
            self.send_response(status)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()


def ask(address, folder, *settings):
    return doctor(QUICKSTART, f"model.base={NAME}", *settings, only=["hub", "base", "tokenizer"],
                  environment={"HF_ENDPOINT": address, "HF_HOME": str(folder)})


def test_a_mirror_is_asked_and_the_size_of_the_download_is_told(tmp_path):
    with hub(200, {"id": NAME, "siblings": FILES}) as (address, asked):
        answer = ask(address, tmp_path)
    assert (answer.code, answer.state("hub")) == (0, "warning")
    assert f"the first run downloads 13.5 GB to {tmp_path / 'hub'}" in answer.told("hub")
    assert asked[-1] == f"/api/models/{NAME}?blobs=true"
    assert (answer.state("base"), answer.state("tokenizer")) == ("skipped", "skipped")


def test_a_model_that_the_hub_does_not_know_is_a_fault(tmp_path):
    with hub(404, {"error": "Repository not found"}) as (address, _):
        answer = ask(address, tmp_path)
    assert (answer.code, answer.state("hub")) == (3, "fault")
    assert f"{NAME}: is no folder here, and the hub has no such model, or it is private -> correct model.base" in answer.told("hub")


def test_a_hub_that_never_answers_is_a_warning_after_a_few_seconds(tmp_path):
    with hub(200, {}, wait_s=60) as (address, _):
        answer = ask(address, tmp_path)
    assert (answer.code, answer.state("hub")) == (0, "warning")
    assert "the hub did not answer within 5 s" in answer.told("hub")
    assert "set HF_ENDPOINT to a mirror" in answer.told("hub")
    assert answer.checks["hub"]["seconds"] < 30


def test_the_hub_is_not_asked_where_it_is_forbidden_or_not_needed(tmp_path):
    with hub(200, {}) as (address, asked):
        environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path)}
        assert doctor(QUICKSTART, only=["hub"], environment=environment).code == 0
        assert doctor(QUICKSTART, f"model.base={NAME}", only=["hub"], environment={**environment, "HF_HUB_OFFLINE": "1"}).code == 3
    assert asked == []


def test_a_base_that_lies_in_the_cache_is_found_there(tiny_base, tmp_path):
    commit = "0123456789012345678901234567890123456789"
    repository = tmp_path / "hub" / "models--somebody--code-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / commit).symlink_to(tiny_base)
    answer = doctor(QUICKSTART, f"model.base={NAME}", only=["hub", "tokenizer"],
                    environment={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})
    assert answer.code == 0
    assert f"{NAME} is in the cache: {repository / 'snapshots' / commit}" in answer.told("hub")
    assert answer.state("tokenizer") == "ok"
