"""GPTQ through gptqmodel in its own environment, on the built-in base. Skipped where `mft quantize --setup` has not made that."""

import json
import math
import subprocess
from pathlib import Path

import pytest
import torch

from mft.errors import DependencyError
from mft.modeling.config import QuantizationConfig
from mft.modeling.load import load_base
from mft.quantization.config import QuantizeOptions
from mft.quantization.environment import find_interpreter
from mft.quantization.matrix import Request, quantize

pytestmark = pytest.mark.slow
ENGINE = Path(__file__).with_name("engine_answers.py")


@pytest.fixture(scope="module")
def interpreter():
    try:
        return find_interpreter("this test")
    except DependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def rows(shared_data):
    return shared_data / "mft" / "python_code_gen.jsonl.gz"


def run(tiny_base, rows, out, jobs, quality=None):
    options = QuantizeOptions.model_validate({"jobs": jobs, "calibration": {"decontaminate": [], "held_out_rows": 48}, "quality": quality})
    return quantize(Request(tiny_base, "tiny-code-llama", out, options, rows, "codefuse"))


@pytest.fixture(scope="module")
def made(interpreter, tiny_base, rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("gptq") / "out"
    return out, run(tiny_base, rows, out, [{"bits": 4, "group_size": 64}, {"method": "rtn", "bits": 4, "group_size": 64}], {})


def answers(interpreter, engine, folder):
    done = subprocess.run([interpreter, ENGINE, engine, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_gptq_is_nearer_to_the_unquantised_model_than_rounding(made):
    gptq, nearest = made[1]["jobs"]
    assert gptq["kl"] < 0.8 * nearest["kl"]
    assert gptq["damp"] == 0.1
    assert gptq["bytes"] - gptq["predicted_bytes"] < 40_000    # the header of the file


@pytest.mark.parametrize("engine", ["transformers", "gptqmodel"])
def test_the_engines_compute_what_the_folder_says(engine, made, interpreter):
    folder = made[0] / "main"
    found = answers(interpreter, engine, folder)
    assert found["linear"].startswith("gptqmodel.nn_modules")
    model = load_base(folder, QuantizationConfig(type="none", compute_dtype="bf16"))
    with torch.no_grad():
        logits = model(torch.arange(300, 340)[None]).logits[0].float()
    # bf16 activations through 7 layers: the kernels multiply in another order
    assert (torch.tensor(found["last"]) - logits[-1]).abs().max() < 0.05 * logits[-1].abs().max() + 8 * 2**-8 * math.sqrt(49)
    agreement = (torch.tensor(found["argmax"]) == logits.argmax(-1)).float().mean()
    assert agreement >= 0.9
    assert len(found["answer"]) == 12


def test_a_second_run_gives_the_same_hashes(made, interpreter, tiny_base, rows, tmp_path):
    again = run(tiny_base, rows, tmp_path / "again", [{"bits": 4, "group_size": 64}])
    assert again["calibration_sha256"] == made[1]["calibration_sha256"]
    ours, theirs = (json.loads((folder / "main" / "manifest.json").read_text())["files"] for folder in (made[0], tmp_path / "again"))
    for name in ("model.safetensors", "config.json", "quantize_config.json", "tokenizer.json", "calibration.json"):
        assert ours[name]["sha256"] == theirs[name]["sha256"], name


def test_both_jobs_saw_the_same_rows_and_the_folder_names_them(made):
    stored = json.loads((made[0] / "main" / "calibration.json").read_text())
    manifest = json.loads((made[0] / "main" / "manifest.json").read_text())
    assert stored["sha256"] == manifest["calibration_sha256"] == made[1]["calibration_sha256"]
    assert len(stored["ids"]) == 128
