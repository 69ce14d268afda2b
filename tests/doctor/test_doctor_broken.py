"""Environments that are broken on purpose: each fault is named with its remedy, exit code 3, and the other checks are still made."""

import json
import shutil
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
from doctor.doctor_command import QUICKSTART, ROOT, doctor, with_limit, with_mounts

linux = pytest.mark.skipif(sys.platform != "linux", reason="mounts and limits of Linux")


def faulty(answer, name, *words):
    """The check of this name is the only fault, and says these words."""
    assert answer.code == 3, answer.stderr
    assert answer.result["ok"] is False
    assert answer.result["exit_code"] == 3
    assert [check["name"] for check in answer.result["checks"] if check["state"] == "fault"] == [name]
    assert answer.checks[name]["remedy"]
    for word in words:
        assert word in answer.told(name)
    others = {check["state"] for check in answer.result["checks"] if check["name"] != name}
    assert others <= {"ok", "warning", "skipped"}
    assert others & {"ok", "warning"}


def copied_base(tiny_base, folder):
    shutil.copytree(tiny_base, folder)
    return folder


def stub_package(folder: Path, source: str) -> dict[str, str]:
    """An environment in which a package of this source stands before the installed bitsandbytes."""
    package = folder / "bitsandbytes"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(source)
    return {"PYTHONPATH": str(folder)}


def fake_version(folder: Path, package: str, version: str) -> dict[str, str]:
    """An environment in which metadata of another version stand before the installed ones."""
    info = folder / f"{package}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    return {"PYTHONPATH": str(folder)}


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="the extra tensorboard is installed")
def test_a_missing_extra_that_the_config_asks_for():
    answer = doctor(QUICKSTART, "tracking.tensorboard=true", only=["extras", "python"])
    faulty(answer, "extras", "tracking.tensorboard needs the package 'tensorboard', which is not installed", "'mft[tensorboard]'")


def test_no_login_for_the_tracker_that_the_config_asks_for(tmp_path):
    (tmp_path / "netrc").write_text("machine other.example login user password x\n")
    home = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    answer = doctor(QUICKSTART, "tracking.wandb=true", only=["extras", "python"], environment=home)
    faulty(answer, "extras", "there is no login for api.wandb.ai", "wandb login", "WANDB_MODE=offline")
    answer = doctor(QUICKSTART, "tracking.wandb=true", only=["extras"], environment={**home, "WANDB_MODE": "offline"})
    assert answer.code == 0
    (tmp_path / "netrc").write_text("machine wandb.example login user password x\n")
    environment = {**home, "WANDB_BASE_URL": "https://wandb.example"}
    assert doctor(QUICKSTART, "tracking.wandb=true", only=["extras"], environment=environment).code == 0


def test_a_package_of_another_version(tmp_path):
    answer = doctor(only=["packages", "python"], environment=fake_version(tmp_path, "transformers", "4.40.0"))
    faulty(answer, "packages", "transformers 4.40.0 is outside of ", ">=5.20", "pip install 'transformers<", "constraints.txt")


def test_a_package_within_its_range_but_not_the_tested_one_is_noted(tmp_path):
    answer = doctor(only=["packages"], environment=fake_version(tmp_path, "transformers", "5.20.9"))
    assert answer.code == 0
    assert "transformers 5.20.9 (tested: 5.23.0)" in answer.told("packages")


def test_a_package_that_another_one_does_not_work_with(tmp_path):
    """transformers names the versions of `kernels` that it works with in an extra alone, so that pip does not see to it."""
    answer = doctor(only=["packages"], environment=fake_version(tmp_path, "kernels", "0.17.2"))
    assert answer.state("packages") == "warning"
    assert "transformers wants kernels<0.19,>=0.18.2, and 0.17.2 is installed" in answer.told("packages")


@pytest.mark.parametrize(("source", "words"), [
    ("raise RuntimeError('libcudart.so.12: cannot open shared object file')", "RuntimeError: libcudart.so.12: cannot open"),
    ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "the interpreter crashed (SIGSEGV)"),
    pytest.param("raise SystemExit(0)", "SystemExit: 0", marks=pytest.mark.slow)])
def test_4_bit_kernels_that_break_when_they_are_imported(tmp_path, source, words):
    answer = doctor(only=["4-bit", "python"], environment=stub_package(tmp_path, source))
    faulty(answer, "4-bit", words, "pip install --force-reinstall bitsandbytes", "quantization: {type: none}")


@linux
def test_no_shared_memory():
    answer = doctor(only=["shared-memory", "open-files"], before=with_mounts("-t tmpfs -o size=64k tmpfs /dev/shm"))
    faulty(answer, "shared-memory", "/dev/shm (0.07 MB, 0.07 MB free) cannot hold 8.4 MB: no space left on device", "--shm-size")


@linux
def test_shared_memory_of_a_container_is_a_warning():
    answer = doctor(only=["shared-memory"], before=with_mounts("-t tmpfs -o size=64m tmpfs /dev/shm"))
    assert answer.code == 0
    assert answer.state("shared-memory") == "warning"


def test_a_tokenizer_that_has_lost_its_normalizer(tiny_base, tmp_path):
    folder = copied_base(tiny_base, tmp_path / "base")
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    spec["normalizer"] = None
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    answer = doctor(QUICKSTART, f"model.base={folder}", only=["tokenizer", "environment"])
    faulty(answer, "tokenizer", str(folder), "normalizer", "take tokenizer.json from the model's own repository")


def test_a_tokenizer_that_gives_other_ids_than_it_should(tiny_base, tmp_path):
    folder = copied_base(tiny_base, tmp_path / "base")
    (folder / "golden_ids.json").write_text(json.dumps([{"text": "def f():", "ids": [1, 2, 3]}]), encoding="utf-8")
    answer = doctor(QUICKSTART, f"model.base={folder}", only=["tokenizer", "environment"])
    faulty(answer, "tokenizer", f"{folder}: golden ids: 'def f():' gives [", ", not [1, 2, 3]")


def test_a_format_that_does_not_go_with_the_tokenizer():
    answer = doctor(QUICKSTART, "model.format=chatml", only=["tokenizer", "environment"])
    faulty(answer, "tokenizer", "format 'chatml' needs <|im_end|>, <|im_start|> as control tokens", "model.add_tokens")
    tokens = 'model.add_tokens=["<|im_start|>", "<|im_end|>"]'
    assert doctor(QUICKSTART, "model.format=chatml", tokens, only=["tokenizer"]).code == 0


def test_no_sandbox_where_one_is_needed(tmp_path):
    nothing = {"PATH": str(tmp_path)}
    answer = doctor("--need", "sandbox", only=["sandbox", "python"], environment=nothing)
    faulty(answer, "need sandbox", "bwrap is not on PATH", "unshare is not on PATH", "install bubblewrap")
    assert answer.state("sandbox") == "warning"
    assert doctor(only=["sandbox"], environment=nothing).code == 0


@linux
def test_a_full_disk(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    answer = doctor(QUICKSTART, "--out", out, only=["storage", "python"], before=with_mounts(f"-t tmpfs -o size=200k tmpfs {out}"))
    faulty(answer, "storage", f"{out}: the output folder cannot be written to: no space left on device", "make room there", "--out")


@linux
def test_an_output_folder_that_is_read_only(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    answer = doctor(QUICKSTART, "--out", out / "run", only=["storage", "python"], before=with_mounts(f"-t tmpfs -o ro tmpfs {out}"))
    faulty(answer, "storage", f"{out / 'run'}: the output folder cannot be written to: read-only file system", "mount it writable")


@linux
def test_a_disk_too_small_for_what_will_be_written(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    mounts = with_mounts(f"-t tmpfs -o size=16m tmpfs {out}")
    answer = doctor(QUICKSTART, "--out", out, only=["storage", "python"], before=mounts)
    faulty(answer, "storage", "about 27.1 MB will be written besides the data, and 16.8 MB are free", "training.keep_last")


def test_weights_files_that_are_cut_off_or_missing_and_a_context_that_is_too_long_are_named_together(tiny_base, tmp_path):
    folder = copied_base(tiny_base, tmp_path / "base")
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.truncate(10_000_000)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {
        "model.norm.weight": "model.safetensors", "lm_head.weight": "model-00002-of-00002.safetensors"}}))
    answer = doctor(QUICKSTART, f"model.base={folder}", "model.context=1000000", only=["base", "tokenizer"])
    faulty(answer, "base", "has 10000000 bytes where its header asks for 14531048", "download or copy the base again",
           "1 of 2 weights files are missing: model-00002-of-00002.safetensors",
           "model.context is 1000000", "max_position_embeddings", "set model.context to at most ")


def test_a_base_that_is_not_there():
    answer = doctor(QUICKSTART, "model.base=/no/such/folder", only=["base", "hub"])
    faulty(answer, "base", "/no/such/folder: no such folder", "tiny-code-llama")


@pytest.mark.slow
def test_ranks_that_cannot_meet():
    answer = doctor(only=["all-reduce", "environment"], environment={"GLOO_SOCKET_IFNAME": "nonexistent0"})
    faulty(answer, "all-reduce", "Unable to find address for: nonexistent0", "set GLOO_SOCKET_IFNAME")
    assert "GLOO_SOCKET_IFNAME names nonexistent0, and this machine has " in answer.told("environment")
    on_one = doctor(QUICKSTART, only=["all-reduce"], environment={"GLOO_SOCKET_IFNAME": "nonexistent0"})
    assert (on_one.code, on_one.state("all-reduce")) == (0, "warning")   # the config trains on one process


def test_a_hub_id_that_is_not_here_while_the_hub_is_forbidden(tmp_path):
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    answer = doctor(QUICKSTART, "model.base=nobody/no-such-model", only=["hub", "base", "python"], environment=environment)
    faulty(answer, "hub", "HF_HUB_OFFLINE is set, and nobody/no-such-model: no folder here, and not in the hub's cache",
           str(tmp_path / "hub"), "hf download nobody/no-such-model --local-dir FOLDER", "set model.base to it")
    assert answer.state("base") == "skipped"


@linux
def test_few_open_files():
    answer = doctor(only=["open-files", "python"], before=with_limit("-n 128"))
    faulty(answer, "open-files", "a process may open 128 files", "ulimit -n 128 before the command (the hard limit is 128)", "LimitNOFILE")
    answer = doctor(only=["open-files"], before=with_limit("-S -n 512"))
    assert (answer.code, answer.state("open-files")) == (0, "warning")


@linux
@pytest.mark.skipif("+cpu" not in metadata.version("torch"), reason="torch with CUDA maps more address space than the limit of this test")
def test_too_little_memory_for_the_base(tmp_path):
    """A base of 12 billion numbers: a header that is whole and a file without contents, which takes no disk."""
    header = json.dumps({"model.layers.0.mlp.up_proj.weight": {
        "dtype": "BF16", "shape": [120_000, 100_000], "data_offsets": [0, 24_000_000_000]}}).encode()
    with (tmp_path / "model.safetensors").open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + 24_000_000_000)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 4096}))
    answer = doctor(QUICKSTART, f"model.base={tmp_path}", "stages.train.quantization.type=none", only=["memory", "python"],
                    before=with_limit(f"-v {10 * 1024 ** 2}"))
    faulty(answer, "memory", "stage 'train' holds 24.0 GB of weights, and ulimit -v allows 10.7 GB", "mft plan CONFIG", "ulimit -v")


@linux
@pytest.mark.skipif("+cpu" not in metadata.version("torch"), reason="torch with CUDA maps more address space than the limit of this test")
def test_too_little_memory_for_a_base_that_is_not_here_but_whose_sizes_are_known(tmp_path):
    config = ROOT / "configs" / "codefuse-codellama-34b-4k.yaml"
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    answer = doctor(config, only=["memory", "python"], before=with_limit(f"-v {10 * 1024 ** 2}"), environment=environment)
    # 18.2 GB of NF4 weights on each of 8 processes
    faulty(answer, "memory", "stage 'train' holds 145.5 GB of weights, 18.2 GB in each of 8 processes, and ulimit -v allows 10.7 GB")


def test_an_optimizer_that_needs_a_gpu():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    answer = doctor(QUICKSTART, "stages.train.training.optimizer=paged_adamw", only=["torch", "python"])
    faulty(answer, "torch", "no CUDA device, and stage 'train': training.optimizer is paged_adamw", "run on a machine with a GPU")


def test_a_recipe_whose_files_are_not_there(tmp_path):
    config, recipe = tmp_path / "project.yaml", tmp_path / "recipe.yaml"
    config.write_text("name: p\nmodel: {base: tiny-code-llama, format: codefuse, context: 64}\n"
                      "stages: [{kind: data, name: data, recipe: recipe.yaml}]\n")
    source = "{type: jsonl, path: absent.jsonl, converter: chat_rounds}"
    recipe.write_text(f"name: r\ntasks:\n  a: {{sources: [{source}]}}\n  b: {{sources: [{source.replace('absent', 'gone')}]}}\n")
    answer = doctor(config, only=["recipes", "tokenizer"])
    faulty(answer, "recipes", f"absent.jsonl: no such file, and 1 more, which `mft data build {recipe} --out DIR` lists",
           f"put the file where the recipe looks for it, or correct {recipe}")


@pytest.mark.slow
def test_everything_broken_at_once_is_named_at_once(tiny_base, tmp_path):
    folder = copied_base(tiny_base, tmp_path / "base")
    (folder / "tokenizer.json").write_text("{}")
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.truncate(100)
    stub_package(tmp_path / "stub", "raise ImportError('broken')")
    environment = {**fake_version(tmp_path / "stub", "peft", "0.1.0"), "GLOO_SOCKET_IFNAME": "nonexistent0", "HOME": str(tmp_path)}
    answer = doctor(QUICKSTART, f"model.base={folder}", "tracking.wandb=true", "stages.train.distributed.engine=ddp",
                    "stages.train.training.optimizer=paged_adamw", before=with_limit("-n 200"), environment=environment)
    assert answer.code == 3
    faults = {check["name"] for check in answer.result["checks"] if check["state"] == "fault"}
    assert {"packages", "imports", "extras", "all-reduce", "4-bit", "open-files", "base", "tokenizer"} <= faults
    assert "bitsandbytes is installed, but cannot be imported: ImportError: broken" in answer.told("imports")
    assert len(answer.checks) == 18
    for name in ("environment", "python", "shared-memory", "storage", "attention", "recipes"):
        assert answer.state(name) in ("ok", "warning"), answer.told(name)
    assert all(check["remedy"] for check in answer.result["checks"] if check["state"] == "fault")
