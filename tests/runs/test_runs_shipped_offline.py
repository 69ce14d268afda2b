"""What configs/README.md says of sites without the internet: real processes, a cache and a mirror made on the spot."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mft.modeling.base import resolve_base

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RESOLVE = "import sys\nfrom mft.modeling.base import resolve_base\nprint(resolve_base(sys.argv[1]))"
RECIPE = """\
name: r
tasks: {qa: {sources: [{type: hub, name: org/set}]}}
split: {validation: 0, by: id}
"""


class Hub(ThreadingHTTPServer):
    """A model hub on loopback with one model, org/tiny; `asked` is every request, in order."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files = files
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, with_body: bool) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        headers, body, code = {}, b"", 200
        if self.path.startswith("/api/models/org/tiny/tree/"):
            body = json.dumps([{"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                               for name, content in self.server.files.items()]).encode()
        elif self.path.startswith("/api/models/org/tiny/"):
            siblings = [{"rfilename": name} for name in self.server.files]
            body = json.dumps({"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": siblings, "tags": [],
                               "private": False, "downloads": 0}).encode()
        elif self.path.startswith(f"/org/tiny/resolve/{COMMIT}/"):
            body = self.server.files[self.path.rsplit("/", 1)[1]]
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'}
        else:
            code = 404
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body)), "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *said: object) -> None:
        """Nothing is written to stderr."""


@pytest.fixture
def hub(tiny_base):
    server = Hub({path.name: path.read_bytes() for path in tiny_base.iterdir() if path.is_file()})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def child(*arguments, cache, hub, **variables):
    """A Python process whose hub cache and hub are these; (exit code, stdout, stderr)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE_"))
            and name.lower() not in ("http_proxy", "https_proxy", "all_proxy")}
    environment = {**kept, "HF_HOME": str(cache), "HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1", **variables}
    process = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=400)
    return process.returncode, process.stdout, process.stderr


def fill_cache(home, base):
    """What the hub's library keeps of a model that was downloaded once."""
    repository = home / "hub" / "models--org--tiny"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for path in base.iterdir():
        (snapshot / path.name).symlink_to(path)
    return snapshot


def test_offline_a_hub_id_is_found_in_a_copied_cache_and_no_one_is_asked(hub, tiny_base, tmp_path):
    snapshot = fill_cache(tmp_path / "home", tiny_base)
    code, out, errors = child("-c", RESOLVE, "org/tiny", cache=tmp_path / "home", hub=hub, HF_HUB_OFFLINE="1")
    assert code == 0, errors
    assert Path(out.strip()) == snapshot
    assert hub.asked == []


@pytest.mark.slow
def test_offline_a_project_with_a_hub_id_dry_runs_and_what_the_cache_lacks_is_one_message(hub, tiny_base, tmp_path):
    from training.test_training_resume import write_project

    config = write_project(tmp_path / "project")
    fill_cache(tmp_path / "home", tiny_base)

    def dry_run(base):
        return child("-m", "mft", "-q", "--json", "train", config, "--out", tmp_path / "out", "--dry-run", f"model.base={base}",
                     cache=tmp_path / "home", hub=hub, HF_HUB_OFFLINE="1")

    code, out, errors = dry_run("org/tiny")
    assert code == 0, errors
    assert json.loads(out)["samples"] == 161
    code, _, errors = dry_run("org/absent")
    assert code == 2
    assert errors.startswith("mft: org/absent: not a folder here, and the model hub did not give it (")
    assert "Traceback" not in errors
    assert hub.asked == []


@pytest.mark.slow
def test_a_project_of_local_files_asks_no_hub_for_anything_though_it_might(hub, tiny_base, tmp_path):
    from training.test_training_resume import write_project

    config = write_project(tmp_path / "project", steps=1, every=0)
    stages = "  - {kind: merge, name: merged, adapter: train}\n  - {kind: evaluate, name: loss, benchmark: loss, models: [base, merged]}\n"
    config.write_text(config.read_text() + stages)
    code, out, errors = child("-m", "mft", "-q", "--json", "run", config, "--out", tmp_path / "out", f"model.base={tiny_base}",
                              "stages.loss.generations=1", "stages.loss.max_new_tokens=4", cache=tmp_path / "home", hub=hub)
    assert code in (0, 3), errors   # 3: one step may make a model worse, which the evaluation says
    assert [stage["name"] for stage in json.loads(out)["stages"]] == ["data", "train", "merged", "loss"]
    assert hub.asked == []


def test_a_mirror_is_asked_in_place_of_the_hub_and_gives_the_model(hub, tiny_base, tmp_path):
    code, out, errors = child("-c", RESOLVE, "org/tiny", cache=tmp_path / "home", hub=hub)
    assert code == 0, errors
    fetched = Path(out.strip())
    assert fetched.is_relative_to(tmp_path / "home")
    assert (fetched / "model.safetensors").read_bytes() == (tiny_base / "model.safetensors").read_bytes()
    assert any(request.startswith("GET /api/models/org/tiny/revision/main") for request in hub.asked)
    before = len(hub.asked)
    assert child("-c", RESOLVE, "org/tiny", cache=tmp_path / "home", hub=hub, HF_HUB_OFFLINE="1")[1] == out   # what was fetched stays
    assert len(hub.asked) == before


def test_a_data_set_is_asked_of_the_mirror_and_offline_of_no_one(hub, tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    build = ("-m", "mft", "-q", "data", "build", tmp_path / "r.yaml", "--out", tmp_path / "out")
    code, _, errors = child(*build, cache=tmp_path / "home", hub=hub, HF_HUB_OFFLINE="1")
    assert code == 2
    assert hub.asked == []
    assert "data set 'org/set' cannot be reached: offline mode is set (HF_HUB_OFFLINE)" in errors
    assert "hf download --repo-type dataset org/set" in errors
    code, _, errors = child(*build, cache=tmp_path / "home", hub=hub)
    assert code == 2
    assert hub.asked
    assert any(request.startswith("GET /api/datasets/org/set") for request in hub.asked)
    assert not (tmp_path / "out").exists()


def test_a_base_may_be_a_folder_beside_the_config(tiny_base, tmp_path, monkeypatch):
    (tmp_path / "project" / "models").mkdir(parents=True)
    (tmp_path / "project" / "models" / "tiny").symlink_to(tiny_base)
    monkeypatch.chdir(tmp_path)
    assert resolve_base("models/tiny", beside=tmp_path / "project") == tiny_base
    assert resolve_base(str(tiny_base)) == tiny_base
