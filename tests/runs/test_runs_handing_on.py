"""What a stage hands on is held against the hashes that it left, before another stage reads it."""

import os

import pytest
from training.test_training_resume import write_project

from mft.errors import CheckFailed, ConfigError
from mft.files import read_json, write_manifest
from mft.modeling.stamps import stamped_hashes
from mft.report.page import write_report
from mft.runs.config import load_project
from mft.runs.finished import (
    Finished,
    check_files,
    files_of,
    lost_files,
    note_begun,
    note_finished,
    read_finished,
    replaces_other,
    was_begun,
)
from mft.runs.graph import choose, inputs_of
from mft.runs.project import Project, run_project


@pytest.fixture
def merged(tmp_path):
    """A finished stage `merged` of two files, a card and a manifest."""
    folder = tmp_path / "out" / "merged"
    folder.mkdir(parents=True)
    for name in ("model-1.safetensors", "model-2.safetensors", "README.md"):
        (folder / name).write_text(f"what {name} holds")
    write_manifest(folder, {"made_by": "a test"})
    out = tmp_path / "out"
    return out, Finished("merged", "key", {"stage": "a"}, "print", 1.5, {"tensors": 2}, files_of([folder], out))


def test_the_record_names_every_file_and_is_read_as_it_was_written(merged):
    out, finished = merged
    assert sorted(finished.files) == [
        "merged/README.md", "merged/manifest.json", "merged/model-1.safetensors", "merged/model-2.safetensors"]
    note_finished(out, finished)
    assert read_finished(out, "merged") == finished
    assert check_files(finished, out) == finished


def test_a_stage_that_was_begun_again_is_no_longer_finished_and_may_replace_what_it_had_left(merged):
    out, finished = merged
    assert not replaces_other(out, "merged")
    note_finished(out, finished)
    assert replaces_other(out, "merged")
    note_begun(out, "merged", replaces=True)
    assert read_finished(out, "merged") is None
    assert was_begun(out, "merged")
    assert replaces_other(out, "merged")


def test_a_changed_byte_is_named_with_its_file_its_stage_and_the_remedy(merged):
    out, finished = merged
    (out / "merged" / "model-2.safetensors").write_text("What model-2.safetensors holds")
    with pytest.raises(CheckFailed) as caught:
        check_files(finished, out)
    message = str(caught.value).splitlines()
    assert message[0].startswith(f"{out}/merged/model-2.safetensors: is not as stage 'merged' left it (sha256 ")
    assert message[1:] == ["--from merged makes it again, and all stages after it"]


def test_a_file_with_another_time_and_the_same_content_is_taken_and_its_time_noted(merged):
    out, finished = merged
    path = out / "merged" / "model-1.safetensors"
    os.utime(path, ns=(1, 1))
    checked = check_files(finished, out)
    assert checked.files["merged/model-1.safetensors"]["mtime_ns"] == 1
    assert checked.files["merged/model-1.safetensors"]["sha256"] == finished.files["merged/model-1.safetensors"]["sha256"]


def test_a_byte_that_was_changed_behind_size_and_time_is_found_where_all_is_read(merged):
    out, finished = merged
    path = out / "merged" / "model-1.safetensors"
    times = path.stat()
    path.write_text("What model-1.safetensors holds")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    check_files(finished, out)
    with pytest.raises(CheckFailed, match=r"model-1\.safetensors: is not as stage 'merged' left it"):
        check_files(finished, out, read_all=True)


def test_a_card_may_be_written_on_and_a_file_that_is_gone_is_lost(merged):
    out, finished = merged
    (out / "merged" / "README.md").write_text("my words")
    check_files(finished, out)
    (out / "merged" / "model-2.safetensors").unlink()
    assert lost_files(finished, out) == ["merged/model-2.safetensors"]


def test_hashes_of_a_base_are_kept_between_commands_until_size_or_time_changes(tmp_path, monkeypatch):
    base, store = tmp_path / "config.json", tmp_path / "hashes.json"
    base.write_text("{}")
    first = stamped_hashes([base], store)
    assert first == {"config.json": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}
    monkeypatch.setattr("mft.modeling.stamps.sha256_of", lambda path: pytest.fail(f"{path} was read again"))
    assert stamped_hashes([base], store) == first
    monkeypatch.undo()
    base.write_text("{ }")
    assert stamped_hashes([base], store) != first


STAGES = """
  - {kind: merge, name: merged, adapter: train, dtype: fp32}
  - kind: train
    name: second
    data: data
    init_from: merged
    quantization: {type: none, compute_dtype: fp32}
    adapter: {rank: 2, alpha: 4, dropout: 0}
    training: {max_steps: 2, global_batch_rows: 2, micro_batch_rows: 2, learning_rate: 5e-4, evaluate_every: 0, checkpoint_every: 0}
  - {kind: merge, name: merged2, adapter: second, dtype: fp32}
  - {kind: release, name: release, model: merged2}
"""


def write(folder):
    config = write_project(folder, steps=2, every=0)
    config.write_text(config.read_text() + STAGES)
    return config


def project(config, out, *overrides):
    return Project(load_project(config, list(overrides)), config, out, write_report)


def test_a_stage_reads_the_model_below_an_adapter_too(tmp_path):
    config = load_project(write(tmp_path / "project"))
    assert {stage.name: inputs_of(config, stage) for stage in config.stages} == {
        "data": [], "train": ["data"], "merged": ["train"], "second": ["data", "merged"], "merged2": ["second", "merged"],
        "release": ["merged2"]}


def test_from_and_until_choose_a_range_and_from_behind_until_is_refused(tmp_path):
    path = write(tmp_path / "project")
    config = load_project(path)
    choice = choose(config, path, start="merged", until="second")
    assert choice.chosen == {"data", "train", "merged", "second"}
    assert choice.again == {"merged", "second"}
    with pytest.raises(ConfigError, match=r"--from second stands after --until merged, so nothing would run; stages in order: data, train"):
        choose(config, path, start="second", until="merged")


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.law
def test_a_project_refuses_changed_weights_makes_lost_ones_again_and_runs_what_from_needs(tiny_base, tmp_path):
    config, out = write(tmp_path / "project"), tmp_path / "out"
    record = run_project(project(config, out), start="merged", until="merged")   # --from runs the earlier stages that it needs
    assert [entry["name"] for entry in record["stages"]] == ["data", "train", "merged"]
    weights = out / "merged" / "model.safetensors"
    before = read_json(out / ".stages" / "merged.json")
    flip(weights)
    with pytest.raises(CheckFailed, match=rf"{weights}: is not as stage 'merged' left it .*\n--from merged makes it again"):
        run_project(project(config, out), until="second")
    assert not (out / "second").exists()
    assert read_json(out / "run.json")["status"] == "failed"
    run_project(project(config, out), start="merged")
    assert read_json(out / ".stages" / "merged.json")["fingerprint"] == before["fingerprint"]
    finished = {name: read_json(out / ".stages" / f"{name}.json")["fingerprint"] for name in ("train", "second", "merged2", "release")}
    for lost in ("train/adapter/adapter_model.safetensors", "merged2/model.safetensors", "release/tokenizer.json"):
        (out / lost).unlink()
    states = {entry["name"]: entry["skipped"] for entry in run_project(project(config, out))["stages"]}
    assert states == {"data": True, "train": False, "merged": True, "second": True, "merged2": False, "release": False}
    assert {name: read_json(out / ".stages" / f"{name}.json")["fingerprint"] for name in finished} == finished
