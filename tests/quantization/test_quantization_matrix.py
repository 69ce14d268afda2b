"""A matrix end to end with the methods that need no environment of their own: folders, table, resuming, faults."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mft.cli.main import main
from mft.errors import CheckFailed, DependencyError, ModelError, OutputError
from mft.files import check_manifest
from mft.quantization import job as job_module
from mft.quantization.environment import VARIABLE
from mft.quantization.matrix import quantize
from mft.quantization.table import markdown, order_warnings
from mft.release.card import finish_folder

MATRIX = [{"method": "rtn", "bits": 4, "group_size": 32}, {"method": "rtn", "bits": 8, "group_size": 32}, {"method": "nf4"}]


@pytest.fixture(scope="module")
def made(small_llama, rows_file, tmp_path_factory):
    """A finished matrix, and what `quantize` told."""
    from mft.quantization.config import QuantizeOptions
    from mft.quantization.matrix import Request

    out = tmp_path_factory.mktemp("matrix") / "out"
    options = QuantizeOptions.model_validate({"jobs": MATRIX, "git": True, "calibration": {"decontaminate": [], "held_out_rows": 8},
                                              "quality": {"texts": {"py": str(Path(json.__file__).with_name("encoder.py"))},
                                                          "windows": 2, "window_tokens": 64}})
    return out, quantize(Request(small_llama, "small", out, options, rows_file, "codefuse", finish=finish_folder))


def test_each_job_has_a_whole_folder_under_its_name(made):
    out, result = made
    assert [job["name"] for job in result["jobs"]] == ["main", "rtn-8bit-32g", "bnb-nf4"]
    for name in ("main", "rtn-8bit-32g", "bnb-nf4"):
        manifest = check_manifest(out / name)
        assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                "generation_config.json", "quantization.json", "mft.json", "README.md"} <= set(manifest["files"])
    assert not list(out.glob(".*"))


def test_each_folder_has_a_card_and_sums_that_others_can_check(made):
    out, _ = made
    for name, title in (("main", "small-main"), ("bnb-nf4", "small-bnb-nf4")):
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=out / name, check=True)
        card = (out / name / "README.md").read_text()
        assert f"# {title}\n" in card
        assert "base_model_relation: quantized" in card
    assert "| group_size | 32 |" in (out / "main" / "README.md").read_text()


def test_configs_say_what_the_weights_are(made):
    config, plain = (json.loads((made[0] / "main" / name).read_text()) for name in ("config.json", "quantize_config.json"))
    expected = {"bits": 4, "group_size": 32, "desc_act": False, "sym": True, "true_sequential": True, "lm_head": False,
                "quant_method": "gptq", "checkpoint_format": "gptq", "pack_dtype": "int32"}
    assert config["quantization_config"] == expected
    assert {key: plain[key] for key in expected} == expected
    assert (plain["model_name_or_path"], plain["model_file_base_name"]) == ("small", "model")


def test_shapes_are_those_that_the_groups_imply(made):
    tensors = load_file(made[0] / "main" / "model.safetensors")
    shapes = {part: tuple(tensors[f"model.layers.0.mlp.down_proj.{part}"].shape) for part in ("qweight", "qzeros", "scales", "g_idx")}
    assert shapes == {"qweight": (128 * 4 // 32, 64), "qzeros": (4, 64 * 4 // 32), "scales": (4, 64), "g_idx": (128,)}


def test_the_size_was_predicted(made):
    for job in made[1]["jobs"][:2]:
        tensors = load_file(Path(job["path"]) / "model.safetensors")
        # The small model is float32, and what is not quantised stays so: the formula counts 2 bytes of it.
        whole = sum(tensor.numel() * 2 for name, tensor in tensors.items() if tensor.dtype == torch.float32)
        assert sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) - whole == job["predicted_bytes"]


def test_more_bits_are_nearer_to_the_unquantised_model(made):
    four, eight, nf4 = made[1]["jobs"]
    assert 0 < eight["kl"] < 0.02 * four["kl"]
    assert 0 < nf4["kl"] < 2 * four["kl"]
    assert eight["top1_agreement"] > four["top1_agreement"]
    assert set(four["quality"]) == {"held_out", "py"}
    base = made[1]["unquantised_perplexity"]
    assert eight["perplexity"] == pytest.approx(base["held_out"], rel=0.05)
    assert made[1]["warnings"] == []


def test_the_comparison_is_written_beside_the_folders(made):
    text = (made[0] / "comparison.md").read_text()
    assert "| main | rtn | 4 | 32 |" in text
    assert "| (unquantised) | - | 16 |" in text
    assert json.loads((made[0] / "comparison.json").read_text())["jobs"][0]["kl"] == made[1]["jobs"][0]["kl"]
    assert (made[0] / "comparison.png").read_bytes()[:4] == b"\x89PNG"


def test_all_jobs_were_measured_on_the_same_rows(made):
    stored = json.loads((made[0] / "calibration.json").read_text())
    assert stored["sha256"] == made[1]["calibration_sha256"]
    assert len(stored["ids"]) == 128
    assert len({job["quality"]["held_out"]["tokens"] for job in made[1]["jobs"]}) == 1


def test_nf4_loads_in_plain_transformers_and_answers(made):
    folder = made[0] / "bnb-nf4"
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert model.is_loaded_in_4bit
    ids = AutoTokenizer.from_pretrained(folder)("a", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=3, min_new_tokens=3, do_sample=False).shape[1] == ids.shape[1] + 3


def test_each_branch_of_the_repository_holds_a_folder(made):
    repository = made[0] / "matrix.git"

    def git(*arguments):
        return subprocess.run(["git", "--git-dir", str(repository), *arguments], capture_output=True, check=True).stdout

    assert git("branch", "--format", "%(refname:short)").decode().split() == ["bnb-nf4", "main", "rtn-8bit-32g"]
    assert git("symbolic-ref", "HEAD").decode().strip() == "refs/heads/main"
    folder = made[0] / "rtn-8bit-32g"
    listed = set(git("ls-tree", "--name-only", "rtn-8bit-32g").decode().split())
    assert listed == {path.name for path in folder.iterdir()} | {".gitattributes"}
    assert git("show", "rtn-8bit-32g:config.json") == (folder / "config.json").read_bytes()
    pointer = git("show", "rtn-8bit-32g:model.safetensors").decode().split()
    digest = pointer[pointer.index("oid") + 1].removeprefix("sha256:")
    stored = repository / "lfs" / "objects" / digest[:2] / digest[2:4] / digest
    assert stored.read_bytes() == (folder / "model.safetensors").read_bytes()
    assert git("fsck").decode() == ""


def test_a_second_run_makes_nothing_and_a_further_job_is_made_alone(request_for):
    first = quantize(request_for(MATRIX[:1], quality=None))
    stamp = Path(first["jobs"][0]["path"], "model.safetensors").stat().st_mtime_ns
    again = quantize(request_for(MATRIX[:2], quality=None))
    assert [job["skipped"] for job in again["jobs"]] == [True, False]
    assert Path(first["jobs"][0]["path"], "model.safetensors").stat().st_mtime_ns == stamp


def test_the_same_job_gives_the_same_weights(request_for):
    one, two = (quantize(request_for(MATRIX[:1], out, quality=None))["jobs"][0]["path"] for out in ("one", "two"))
    names = ("model.safetensors", "config.json", "tokenizer.json")
    hashes = [[json.loads(Path(path, "manifest.json").read_text())["files"][name]["sha256"] for name in names] for path in (one, two)]
    assert hashes[0] == hashes[1]


def test_a_failed_job_hurts_no_other_and_is_made_alone_afterwards(request_for, monkeypatch):
    real = job_module._weights

    def fails_once(source, job, folder, work, rows):
        if job.bits == 8:
            (folder / "half").write_text("x")
            raise CheckFailed("the quantiser failed")
        return real(source, job, folder, work, rows)

    jobs = [MATRIX[1], MATRIX[0]]
    monkeypatch.setattr(job_module, "_weights", fails_once)
    with pytest.raises(CheckFailed, match=r"main \(rtn-8bit-32g\): the quantiser failed") as caught:
        quantize(request_for(jobs, quality=None))
    failed, fine = caught.value.result["jobs"]
    assert (failed["error"], failed["bytes"]) == ("the quantiser failed", None)
    assert not Path(failed["path"]).exists()
    check_manifest(Path(fine["path"]))
    assert "failed" in markdown(caught.value.result) or caught.value.result["unquantised_perplexity"] is None
    monkeypatch.setattr(job_module, "_weights", real)
    done = quantize(request_for(jobs, quality=None))
    assert [job["skipped"] for job in done["jobs"]] == [False, True]


def test_what_is_quantised_is_not_quantised_again_when_measuring_fails(request_for, monkeypatch):
    from mft.quantization import quality

    monkeypatch.setattr(quality, "compare", lambda *_, **__: (_ for _ in ()).throw(CheckFailed("no")))
    with pytest.raises(CheckFailed):
        quantize(request_for(MATRIX[:1]))
    monkeypatch.undo()
    monkeypatch.setattr(job_module, "_weights", lambda *_: pytest.fail("quantised again"))
    assert quantize(request_for(MATRIX[:1]))["jobs"][0]["kl"] > 0


def test_one_model_is_the_folder_itself_and_is_left_alone_afterwards(request_for):
    result = quantize(request_for(MATRIX[:1], quality=None, single=True, rows=None))
    assert (Path(result["jobs"][0]["path"]) / "model.safetensors").is_file()
    assert quantize(request_for(MATRIX[:1], quality=None, single=True, rows=None))["jobs"][0]["skipped"]
    with pytest.raises(OutputError, match="holds another job"):
        quantize(request_for(MATRIX[1:2], quality=None, single=True, rows=None))
    other = quantize(request_for(MATRIX[1:2], quality=None, single=True, rows=None, overwrite=True))
    assert other["jobs"][0]["bits"] == 8


def test_a_folder_of_something_else_and_a_changed_file_are_refused(request_for, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="files that are of no job"):
        quantize(request_for(MATRIX[:1], quality=None, single=True, rows=None))
    with pytest.raises(OutputError, match="files that are not of mft"):
        quantize(request_for(MATRIX[:1], quality=None))
    done = quantize(request_for(MATRIX[:1], "b", quality=None, single=True, rows=None))
    weights = Path(done["jobs"][0]["path"]) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(OutputError, match=r"model.safetensors: changed since"):
        quantize(request_for(MATRIX[:1], "b", quality=None, single=True, rows=None))


def test_a_missing_environment_is_one_message_with_the_command_and_nothing_is_begun(request_for, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with pytest.raises(DependencyError, match=r"gptq needs gptqmodel in an environment of its own, and there is none at .*; run: "
                                              r"mft quantize --setup"):
        quantize(request_for([{"bits": 4, "group_size": 32}]))
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "python"))
    with pytest.raises(DependencyError, match="no such interpreter; unset it, and run: mft quantize --setup"):
        quantize(request_for([{"bits": 4, "group_size": 32}]))


def test_gguf_without_a_checkout_of_llama_cpp_says_how_to_have_one(request_for, monkeypatch):
    monkeypatch.delenv("MFT_LLAMA_CPP", raising=False)
    with pytest.raises(DependencyError, match="MFT_LLAMA_CPP is not set; run: git clone"):
        quantize(request_for([{"method": "gguf"}]))


def test_a_worker_that_fails_is_a_message_with_its_last_lines(request_for, tmp_path, monkeypatch):
    """A real process in place of the environment's interpreter, which ends as gptqmodel would."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho loading\necho 'RuntimeError: out of memory' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(python))
    with pytest.raises(CheckFailed, match=r"(?s)the quantiser failed \(exit 1; .*RuntimeError: out of memory"):
        quantize(request_for([{"bits": 4, "group_size": 32}], quality=None))
    assert not (tmp_path / "out" / "main").exists()


def test_a_quantised_model_and_a_folder_without_weights_are_refused(request_for, made, small_llama, tmp_path):
    with pytest.raises(ModelError, match=r"is quantised already \(gptq\)"):
        quantize(request_for(MATRIX[:1], model=made[0] / "main", quality=None))
    shutil.copytree(small_llama, tmp_path / "empty", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ModelError, match=r"has no \.safetensors weights"):
        quantize(request_for(MATRIX[:1], model=tmp_path / "empty", quality=None))


def test_a_missing_shard_and_a_truncated_file_are_named_before_anything_is_made(request_for, small_llama, tmp_path):
    cut = Path(shutil.copytree(small_llama, tmp_path / "cut"))
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model.safetensors: has \d+ bytes where its header asks for \d+"):
        quantize(request_for(MATRIX[:1], model=cut, quality=None))
    AutoModelForCausalLM.from_pretrained(small_llama).save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    gone = sorted((tmp_path / "shards").glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(ModelError, match=rf"names \d files, but {gone.name} is missing"):
        quantize(request_for(MATRIX[:1], model=tmp_path / "shards", quality=None))
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_made_is_a_message(request_for):
    for single in (True, False):
        with pytest.raises(OutputError, match=r"/dev/null/.*: (cannot be made|is a file)"):
            quantize(request_for(MATRIX[:1], "/dev/null/out", quality=None, single=single, rows=None))


def test_a_disk_without_room_is_told_before_anything_is_made(request_for, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(OutputError, match=r"the jobs need 0\.00 GB and the disk has 0\.00 GB free"):
        quantize(request_for(MATRIX[:1], quality=None))


def test_a_larger_job_that_is_worse_is_a_warning():
    def job(label, size, kl):
        return {"label": label, "method": "gptq", "bytes": size, "kl": kl, "quality": {"held_out": {"kl_standard_error": 0.001}}}

    assert order_warnings([job("small", 1, 0.10), job("large", 2, 0.05)]) == []
    assert order_warnings([job("small", 1, 0.10), job("large", 2, 0.102)]) == []       # within two standard errors
    assert order_warnings([job("small", 1, 0.10), job("large", 2, 0.11)]) == [
        "large is larger than small and further from the unquantised model (KL 0.11000 and 0.10000)"]


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_no_folder_or_a_whole_one_and_a_rerun_finishes(small_llama, rows_file, tmp_path):
    """Ten times: kill -9 after 4 s and more of a run of two jobs, then look; at the end one run to its end."""
    out = tmp_path / "out"
    (tmp_path / "c.yaml").write_text(json.dumps({
        "name": "k", "model": {"base": str(small_llama), "format": "codefuse", "context": 256}, "stages": [
            {"kind": "data", "name": "data", "recipe": str(tmp_path / "r.yaml")},
            {"kind": "quantize", "name": "q", "model": "base", "data": "data", "jobs": MATRIX[:2],
             "calibration": {"decontaminate": [], "held_out_rows": 8}}]}))
    (tmp_path / "r.yaml").write_text(f"name: r\ntasks: {{t: {{sources: [{{type: jsonl, path: {rows_file}, converter: chat_rounds}}]}}}}\n"
                                     "split: {validation: 0.2, by: id}\n")
    command = [sys.executable, "-m", "mft", "quantize", str(tmp_path / "c.yaml"), "--out", str(out)]
    for number in range(10):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(2 + 0.8 * number)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for name in ("main", "rtn-8bit-32g"):
            if (out / "q" / name).exists():
                check_manifest(out / "q" / name)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for name in ("main", "rtn-8bit-32g"):
        check_manifest(out / "q" / name)
    assert not list((out / "q").glob(".*.work"))


def test_the_command_line_tells_a_job_as_the_contract_says(small_llama, rows_file, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--json", "-q", "quantize", "--model", str(small_llama), "--method", "rtn", "--bits", "4", "--group-size", "32",
              "--format", "codefuse", "--calibration", str(rows_file), "--decontaminate", "none", "--out", str(tmp_path / "out")])
    told = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    (job,) = told["jobs"]
    assert (job["name"], job["bits"], job["group_size"], job["desc_act"], job["damp"]) == ("main", 4, 32, None, None)
    assert job["bytes"] == (tmp_path / "out" / "model.safetensors").stat().st_size
    assert job["perplexity"] > 1


def test_a_quantize_stage_names_a_whole_model_and_rows_where_its_jobs_need_them(tmp_path):
    from mft.errors import ConfigError
    from mft.runs.config import load_project

    (tmp_path / "c.yaml").write_text("""name: c
model: {base: tiny-code-llama, format: codefuse, context: 256}
stages:
  - {kind: data, name: data, recipe: r.yaml}
  - {kind: train, name: train, data: data}
  - {kind: quantize, name: q, model: train, jobs: [{bits: 4}, {bits: 5}]}
  - {kind: quantize, name: p, model: train, jobs: [{bits: 4}, {bits: 4}]}
  - {kind: quantize, name: r, model: train, jobs: [{bits: 4}]}
""")
    with pytest.raises(ConfigError) as caught:
        load_project(tmp_path / "c.yaml")
    text = str(caught.value)
    assert "found 5" in text
    assert "jobs: gptq-4bit-128g-actorder_True: stands there more than once" in text
    (tmp_path / "c.yaml").write_text((tmp_path / "c.yaml").read_text().replace(", {bits: 5}", "").replace(", {bits: 4}]", "]"))
    with pytest.raises(ConfigError) as caught:
        load_project(tmp_path / "c.yaml")
    text = str(caught.value)
    assert "'train' trains an adapter; merge it first and name the merge stage" in text
    assert "gptq measure activations on real rows; name a data stage" in text
