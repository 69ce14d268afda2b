"""Data sets of a hub: streamed at a known commit, counted row by row; without a network one clear message."""

import importlib.machinery
import json
import sys
import types
from types import SimpleNamespace

import pytest
from datasets import IterableDataset
from huggingface_hub.utils import httpx

import mft.data.readers.hub as hub
from mft.data import build, load_recipe
from mft.data.ledger import Ledger
from mft.data.pipeline import job_hash
from mft.data.sources import source_inputs
from mft.errors import DataError, DependencyError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RECIPE = """\
name: r
tasks:
  qa:
    sources:
      - {type: hub, name: org/set, config: main, split: "train", license: MIT, origin: a paper, columns: [question, answer]}
split: {validation: 0, by: id}
"""
ROWS = [{"question": f"q{n}", "answer": f"a{n}", "extra": 1} for n in range(5)] + [{"question": "q", "answer": None, "extra": 1}]


@pytest.fixture
def calls(monkeypatch):
    """A hub with one data set, streamed by the real `datasets`; the list of what was asked of it, and how many rows were taken."""
    asked = SimpleNamespace(loads=[], commits=[], taken=0, head=COMMIT)

    def rows():
        for row in ROWS:
            asked.taken += 1
            yield row

    def load_dataset(name, config, **options):
        asked.loads.append((name, config, options))
        return IterableDataset.from_generator(rows)

    def dataset_info(self, name, revision, timeout):
        asked.commits.append((name, revision))
        return SimpleNamespace(sha=asked.head)

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    monkeypatch.setattr(hub.HfApi, "dataset_info", dataset_info)
    return asked


def recipe(tmp_path, text=RECIPE):
    (tmp_path / "r.yaml").write_text(text)
    return load_recipe(tmp_path / "r.yaml")


def test_a_branch_is_resolved_to_a_commit_which_is_read_and_stands_in_the_manifest(tmp_path, calls):
    built = build(recipe(tmp_path), tmp_path / "out")
    assert calls.loads == [("org/set", "main", {"split": "train", "revision": COMMIT, "streaming": True})]
    assert {row.origin for row in built.rows["train"]} == {f"org/set/main/train:{n}" for n in range(1, 6)}
    assert (built.facts["read"], built.facts["kept"], built.facts["dropped"]) == (6, 5, {"content_not_text": 1})
    entry = json.loads((tmp_path / "out" / "manifest.json").read_text())["inputs"][0]
    assert {key: entry[key] for key in ("type", "name", "config", "split", "revision", "commit", "license", "origin", "columns")} == {
        "type": "hub", "name": "org/set", "config": "main", "split": "train", "revision": "main", "commit": COMMIT, "license": "MIT",
        "origin": "a paper", "columns": ["question", "answer"]}


def test_rows_are_taken_one_by_one(tmp_path, calls):
    ledger = Ledger("read")
    rows = hub.read_hub(recipe(tmp_path).tasks["qa"].sources[0], ledger)
    assert next(rows).value == {"question": "q0", "answer": "a0"}   # the columns that are asked for, no more
    next(rows)
    assert (calls.taken, ledger.read) == (2, 2)


def test_a_branch_that_has_moved_is_another_build_and_a_commit_never_asks_the_network_for_its_hash(tmp_path, calls):
    def job(text=RECIPE):
        loaded = recipe(tmp_path, text)
        return job_hash(loaded, source_inputs(loaded))

    first = job()
    assert job() == first
    calls.head = "f" * 40
    assert job() != first
    calls.commits.clear()
    pinned = job(RECIPE.replace("config: main", f"config: main, revision: {COMMIT}"))
    assert calls.commits == []
    for change in (("split: \"train\"", "split: \"test\""), ("config: main, ", ""), ("columns: [question, answer]", "columns: [answer]"),
                   ("name: org/set", "name: org/other")):
        assert job(RECIPE.replace("config: main", f"config: main, revision: {COMMIT}").replace(*change)) != pinned


def test_two_sources_of_one_data_set_are_read_at_the_commit_that_was_hashed(tmp_path, calls):
    loaded = recipe(tmp_path, RECIPE.replace("split: {validation", "  other: {sources: [{type: hub, name: org/set, config: main, columns: "
                                             "[question, answer]}]}\nsplit: {validation"))
    source_inputs(loaded)
    calls.head = "f" * 40
    build(loaded)
    assert [options["revision"] for _, _, options in calls.loads] == [COMMIT, COMMIT]


def failing(error):
    def rows(*args, **options):
        raise error
    return rows


@pytest.mark.parametrize(("error", "words"), [
    (httpx.ConnectError("[Errno -2] Name or service not known"), "cannot be reached: .*Name or service not known"),
    (ConnectionError("Couldn't reach 'org/set' on the Hub"), "cannot be reached: Couldn't reach"),
    (ValueError("Bad split: nosuch. Available splits: ['train']"), "cannot be read after 0 rows: Bad split"),
    (RuntimeError("Dataset scripts are no longer supported"), "cannot be read after 0 rows: Dataset scripts"),
])
def test_a_data_set_that_cannot_be_loaded_is_one_clear_error(tmp_path, calls, monkeypatch, error, words):
    monkeypatch.setattr(hub, "load_dataset", failing(error))
    with pytest.raises(DataError, match=f"data set 'org/set'.*{words}"):
        build(recipe(tmp_path))


def test_a_network_that_fails_in_the_middle_ends_the_build_instead_of_giving_half_a_data_set(tmp_path, calls, monkeypatch):
    def half():
        yield from ROWS[:3]
        raise httpx.ReadTimeout("timed out")

    monkeypatch.setattr(hub, "load_dataset", lambda *args, **options: half())
    text = RECIPE.replace(", columns: [question, answer]", "")
    with pytest.raises(DataError, match="data set 'org/set' cannot be reached after 3 rows: timed out; download it .*--revision " + COMMIT):
        build(recipe(tmp_path, text), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_network_the_real_library_gives_one_error_that_names_the_data_set_and_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for text in (RECIPE, RECIPE.replace("config: main", f"config: main, revision: {COMMIT}")):
        revision = COMMIT if COMMIT in text else "main"
        with pytest.raises(DataError) as error:
            build(recipe(tmp_path, text), tmp_path / "out")
        assert str(error.value) == (
            "data set 'org/set' cannot be reached: offline mode is set (HF_HUB_OFFLINE); download it where there is a network "
            f"(hf download --repo-type dataset org/set --revision {revision}) and name its files: "
            "type: parquet (or jsonl, json, csv), path: ...")
        assert not (tmp_path / "out").exists()


MODELSCOPE = """\
name: r
tasks: {t: {sources: [{type: modelscope, name: org/set, files: "data/*.jsonl", revision: v1}]}}
split: {validation: 0, by: id}
"""


def test_modelscope_needs_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr("mft.extras.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"data set 'org/set' needs the package 'modelscope'.*pip install 'mft\[modelscope\]'"):
        build(recipe(tmp_path, MODELSCOPE))


@pytest.fixture
def modelscope(monkeypatch, tmp_path):
    """A stand-in for the package: its download function and its error."""
    asked = SimpleNamespace(calls=[], error=None)
    (tmp_path / "cache" / "data").mkdir(parents=True)
    (tmp_path / "cache" / "data" / "a.jsonl").write_text('{"question": "q", "answer": "a"}\n')

    class HubError(Exception):
        pass

    def dataset_snapshot_download(dataset_id, revision=None, allow_patterns=None):
        asked.calls.append((dataset_id, revision, allow_patterns))
        if asked.error:
            raise HubError(asked.error)
        return str(tmp_path / "cache")

    for name, content in {"modelscope": {}, "modelscope.hub": {}, "modelscope.hub.errors": {"HubError": HubError},
                          "modelscope.hub.snapshot_download": {"dataset_snapshot_download": dataset_snapshot_download}}.items():
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return asked


def test_modelscope_files_are_fetched_hashed_and_read(tmp_path, modelscope):
    built = build(recipe(tmp_path, MODELSCOPE), tmp_path / "out")
    assert modelscope.calls == [("org/set", "v1", ["data/*.jsonl"])] * 2
    assert [row.origin for row in built.rows["train"]] == ["org/set/a.jsonl:1"]
    entry = json.loads((tmp_path / "out" / "manifest.json").read_text())["inputs"][0]
    assert (entry["name"], entry["files"]) == ("org/set", 1)
    (tmp_path / "cache" / "data" / "a.jsonl").write_text('{"question": "q", "answer": "b"}\n')
    loaded = recipe(tmp_path, MODELSCOPE)
    assert source_inputs(loaded)[0]["sha256"] != entry["sha256"]


def test_a_modelscope_data_set_that_cannot_be_fetched_is_one_clear_error(tmp_path, modelscope):
    modelscope.error = "[E1020] Connection failed"
    with pytest.raises(DataError, match=r"ModelScope data set 'org/set' cannot be fetched: \[E1020\] Connection failed; download it"):
        build(recipe(tmp_path, MODELSCOPE))
