"""A release is whole or not there, loads in plain transformers, and refuses what would make it wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from mft.errors import CheckFailed, DataError, FormatError, OutputError, TokenizerError
from mft.release.check import check_folder
from mft.release.make import release
from mft.release.push import HubError, push

FILES = ["MD5SUMS", "README.md", "SHA256SUMS", "chat_template.jinja", "config.json", "generation_config.json", "manifest.json",
         "merge.json", "mft.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def test_a_release_has_every_file_and_answers_in_plain_transformers(run_folder, tmp_path):
    out = tmp_path / "out"
    made = release(run_folder, out)
    assert (made["stage"], made["format"]) == ("merged", "codefuse")
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert json.loads((out / "generation_config.json").read_text()) == {
        "bos_token_id": 1, "pad_token_id": 0, "eos_token_id": 2, "do_sample": False}
    assert json.loads((out / "tokenizer_config.json").read_text())["chat_template"] == (out / "chat_template.jinja").read_text()
    assert check_folder(out).ok
    assert check_folder(out, out / "README.md").ok
    assert subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"], cwd=out).returncode == 0
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out)
    inputs = tokenizer.apply_chat_template([{"role": "user", "content": "2+2?"}], add_generation_prompt=True, return_dict=True,
                                           return_tensors="pt")
    assert model.generate(**inputs, max_new_tokens=3).shape[1] == inputs["input_ids"].shape[1] + 3


def test_weights_are_not_stored_twice(run_folder, tmp_path):
    release(run_folder, tmp_path / "out")
    assert os.path.samefile(run_folder / "merged" / "model.safetensors", tmp_path / "out" / "model.safetensors")


def test_a_stage_that_was_damaged_since_is_not_released(run_folder, tmp_path):
    with (run_folder / "merged" / "model.safetensors").open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"\x01\x02")
    with pytest.raises(CheckFailed, match=r"merged/model.safetensors: changed since the stage was made"):
        release(run_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_is_released_without_a_path_of_this_machine(run_folder, tmp_path):
    adapter = run_folder / "train" / "adapter"
    shutil.copytree(run_folder / "merged", adapter)
    for name in ("config.json", "merge.json", "manifest.json", "generation_config.json"):
        (adapter / name).unlink()
    (adapter / "README.md").write_text("base_model: /home/me/base-7b")
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "/home/me/base-7b", "r": 16}))
    (adapter / "mft.json").write_text(json.dumps({"base": "/home/me/base-7b", "format": "codefuse"}))
    release(run_folder, tmp_path / "out", stage="train")
    for path in (tmp_path / "out").iterdir():
        assert b"/home/me" not in path.read_bytes(), path
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == "base-7b"
    head = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: peft" in head
    assert "base_model_relation: adapter" in head
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == 2


def test_the_70b_format_ends_at_both_of_its_tokens(small_llama, codellama70b_tokenizer_folder, tmp_path):
    shutil.copytree(small_llama, tmp_path / "model")
    shutil.copytree(codellama70b_tokenizer_folder, tmp_path / "model", dirs_exist_ok=True)
    release(tmp_path / "model", tmp_path / "out", format_name="codellama70b")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [32015, 2]


def test_what_is_missing_is_one_message_and_nothing_is_left(run_folder, small_llama, tmp_path):
    merged, out = run_folder / "merged", tmp_path / "out"
    (run_folder / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no stage 'merge' with a model; stages with one: train, merged"):
        release(run_folder, out, stage="merge")
    with pytest.raises(FormatError, match=r"does not say which prompt format .* give --format: codefuse"):
        release(small_llama, out)
    (merged / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"merged: has no tokenizer.json"):
        release(run_folder, out)
    with pytest.raises(DataError, match="no such folder"):
        release(tmp_path / "absent", out)
    with pytest.raises(DataError, match="neither a model folder"):
        release(run_folder / "empty", out)
    assert not out.exists()


def test_an_output_that_holds_something_or_cannot_be_made_is_refused(run_folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("mine")
    with pytest.raises(OutputError, match="exists and is not empty"):
        release(run_folder, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made: "):
        release(run_folder, tmp_path / "file" / "out")
    with pytest.raises(OutputError, match="is, holds or lies in the folder to be released"):
        release(run_folder, run_folder / "merged" / "out", overwrite=True)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("a small tmpfs cannot be mounted here (not root)")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_one_message_and_leaves_nothing(run_folder, small_disk):
    with pytest.raises(OutputError, match="No space left on device"):
        release(run_folder, small_disk / "out")
    assert list(small_disk.iterdir()) == []


def test_a_read_only_disk_is_one_message(run_folder, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(OutputError, match="cannot be made: Read-only file system"):
        release(run_folder, small_disk / "out")


@pytest.mark.slow
def test_killed_at_ten_random_moments_there_is_no_release_or_a_whole_one_and_a_rerun_finishes(run_folder, tmp_path):
    out, random = tmp_path / "out", Random(0)
    program = ("import sys\nfrom pathlib import Path\nfrom mft.release.make import release\nprint('go', flush=True)\n"
               "release(Path(sys.argv[1]), Path(sys.argv[2]), overwrite=True)\n")
    command = [sys.executable, "-c", program, str(run_folder), str(out)]
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    took = time.monotonic() - started
    shutil.rmtree(out)
    for _ in range(10):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(random.random() * min(took, 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if out.exists():
            assert check_folder(out).ok
    subprocess.run(command, check=True, capture_output=True)
    assert check_folder(out).ok
    assert [path.name for path in tmp_path.glob(".out.*")] == []


def test_push_is_a_dry_run_that_checks_first(run_folder, tmp_path):
    out = tmp_path / "out"
    release(run_folder, out)
    upload = push(out, "acme/demo")
    assert upload.url is None
    assert sorted(upload.files) == FILES
    with pytest.raises(DataError, match="expected owner/name"):
        push(out, "demo")
    (out / "config.json").write_text("{}")
    with pytest.raises(CheckFailed, match=r"config.json: damaged"):
        push(out, "acme/demo", really=True)


@pytest.mark.parametrize(("variables", "message"), [
    ({"HF_HUB_OFFLINE": "1"}, "acme/demo: the hub is switched off (HF_HUB_OFFLINE); nothing was uploaded"),
    ({"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}, "acme/demo: the hub at http://127.0.0.1:9 did not take it: [Errno 111]"),
])
def test_without_a_hub_a_push_is_one_message(run_folder, tmp_path, variables, message):
    release(run_folder, tmp_path / "out")
    done = subprocess.run([sys.executable, "-m", "mft", "push", str(tmp_path / "out"), "--to", "acme/demo", "--really"],
                          capture_output=True, text=True, env=os.environ | variables)
    assert done.returncode == HubError.exit_code == 2
    assert done.stderr.startswith(f"mft: {message}")
    assert Path(tmp_path / "out").is_dir()
