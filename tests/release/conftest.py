"""A run folder as a project leaves it, around a small random model."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from mft.files import write_manifest

CONFIG = {
    "name": "demo", "model": {"base": "acme/base-7b", "format": "codefuse", "context": 512},
    "stages": [
        {"kind": "data", "name": "data", "recipe": "r.yaml"},
        {"kind": "train", "name": "train", "data": "data", "init_from": None, "quantization": {"type": "nf4"},
         "adapter": {"type": "lora", "rank": 16, "alpha": 32.0}, "training": {"learning_rate": 0.0002, "seed": 1234}},
        {"kind": "merge", "name": "merged", "adapter": "train", "onto": "original"},
        {"kind": "evaluate", "name": "loss", "models": ["base", "train", "merged"]}],
}
RUN = {
    "name": "demo", "status": "done", "versions": {"torch": "2.13.0"},
    "stages": [
        {"name": "data", "kind": "data", "seconds": 1.0, "result": {
            "read": 12345, "kept": 9541, "dropped": {"too_short": 212, "duplicate": 691}, "sha256": "9f2c" * 16,
            "per_task": {"text2code": {"train": 2911, "validation": 148}}}},
        {"name": "train", "kind": "train", "seconds": 2.0, "result": {
            "steps": 120, "loss": 1.6234, "ranks": 2, "compute_dtype": "bfloat16", "trainable_parameters": 1343488,
            "tasks": {"text2code": {"loss": 1.54, "tokens": 140000}},
            "tokens": {"train": {"samples": 9060, "rows": 960, "tokens": 980765, "trained_tokens": 412345}}}},
        {"name": "merged", "kind": "merge", "seconds": 3.0, "result": {}},
        {"name": "loss", "kind": "evaluate", "seconds": 4.0, "result": {
            "benchmark": "loss", "models": ["base", "train", "merged"],
            "tasks": {"text2code": {"rows": 148, "loss": {"base": 1.88, "train": 1.49, "merged": 1.4905},
                                    "difference": {"merged": {"mean": -0.3895, "se": 0.0213}}}},
            "overall": {"rows": 148, "loss": {"base": 1.88, "train": 1.49, "merged": 1.4905}},
            "protocol": {"measure": "mean negative log-likelihood", "context": 512, "models": {"base": {"path": "/home/me/base"}}}}}],
}
MERGE = {"tensors": 75, "merged": 56, "verify": "layers", "max_abs_diff": 0.0125, "tolerance": 0.09, "reference": "base + adapter"}


@pytest.fixture
def run_folder(small_llama: Path, tmp_path: Path) -> Path:
    """A project's output: data, train, merge and evaluate stages, the merged model with its manifest."""
    run = tmp_path / "run"
    merged = run / "merged"
    shutil.copytree(small_llama, merged)
    (merged / "mft.json").write_text(json.dumps({"format": "codefuse"}))
    (merged / "merge.json").write_text(json.dumps(MERGE))
    (merged / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "temperature": 0.6, "do_sample": True}))
    write_manifest(merged, {"made_by": "mft merge", "options": {"onto": "original", "dtype": "fp32"}, "base": "acme/base-7b"})
    (run / "run.json").write_text(json.dumps(RUN))
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return run
