"""A run folder as the stages of a project leave it, with text that would break a page that does not escape."""

import json
import math
from pathlib import Path
from random import Random
from typing import Any

TASKS = {"completion": (1.92, 1.61), "docstring": (2.41, 1.74), "text2code": (1.88, 1.49), "usage": (2.05, 1.97)}

RUN: dict[str, Any] = {
    "name": "quickstart", "status": "done",
    "stages": [
        {"name": "data", "kind": "data", "seconds": 9.41, "skipped": False, "result": {"kept": 9541}},
        {"name": "train", "kind": "train", "seconds": 151.2, "skipped": False, "result": {}},
        {"name": "merged", "kind": "merge", "seconds": 0.84, "skipped": True, "result": {}},
        {"name": "loss", "kind": "evaluate", "seconds": 41.7, "skipped": False, "result": {}},
        {"name": "report", "kind": "report", "seconds": None, "skipped": False, "result": {}},
    ],
    "versions": {"python": "3.11.2", "mft": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.23.0", "peft": "0.21.0"},
}

MANIFEST: dict[str, Any] = {
    "read": 12345, "kept": 9541, "emitted": 9541,
    "dropped": {"unparsable": 3, "no_docstring": 1800, "too_short": 212, "too_long": 98, "duplicate": 691},
    "steps": [
        {"step": "read", "task": "text2code", "read": 8000, "kept": 6197, "dropped": {"unparsable": 3, "no_docstring": 1800}},
        {"step": "read", "task": "docstring", "read": 4345, "kept": 4345, "dropped": {}},
        {"step": "length", "read": 10542, "kept": 10232, "dropped": {"too_short": 212, "too_long": 98}},
        {"step": "exact_dedup", "read": 10232, "kept": 9541, "dropped": {"duplicate": 691}},
    ],
    "per_task": {"completion": {"train": 3105, "validation": 160}, "docstring": {"train": 2706, "validation": 133},
                 "text2code": {"train": 2911, "validation": 148}, "usage": {"train": 360, "validation": 18}},
    "sha256": "9f2c" * 16, "joined": {"doctest": {"into": "usage", "rows": 31, "validation_rows": 2, "validation_files": 1}},
}

SAMPLES: list[dict[str, Any]] = [
    {"id": "textwrap.py:382#shorten", "task": "text2code", "origin": "textwrap.py:382 shorten", "spans": [
        {"text": "<s>human\n", "trained": False},
        {"text": "Write the body.\n\ndef shorten(text, width, **kwargs):\n", "trained": False},
        {"text": "    \"\"\"Collapse and truncate the text.\"\"\"\n", "trained": False},
        {"text": "<s>bot\n", "trained": False},
        {"text": "    w = TextWrapper(width=width, max_lines=1, **kwargs)\n\treturn w.fill(' '.join(text.strip().split()))\n</s>",
         "trained": True}]},
    {"id": "html/__init__.py:12#escape", "task": "docstring", "origin": "html/__init__.py:12 escape", "spans": [
        {"text": "\n<s>human\ndef escape(s):\r\n", "trained": False},
        {"text": "    return s.replace(\"&\", \"&amp;\").replace('<', '&lt;')\x00\n", "trained": False},
        {"text": "<s>bot\n", "trained": False},
        {"text": "Replace <script>alert(\"https://example.org/x\")</script> & friends.</s>", "trained": True}]},
    {"id": "chat-7", "task": "usage", "origin": None, "spans": [
        {"text": "<s>human\nFirst?\n<s>bot\n", "trained": False}, {"text": "One.</s>", "trained": True},
        {"text": "<s>human\nSecond?\n<s>bot\n", "trained": False}, {"text": "Two.</s>", "trained": True}]},
]

TRAIN: dict[str, Any] = {
    "kind": "train", "adapter": "/home/someone/run/train/adapter", "steps": 120, "loss": 1.6234, "seconds": 149.9,
    "trainable_parameters": 1343488,
    "tasks": {"completion": {"loss": 1.66, "tokens": 180000}, "docstring": {"loss": 1.79, "tokens": 72345},
              "text2code": {"loss": 1.54, "tokens": 140000}, "usage": {"loss": 2.02, "tokens": 20000}},
    "tokens": {
        "train": {"samples": 9060, "tokens": 980765, "trained_tokens": 412345, "rows": 960, "fill": 0.99769, "context": 1024,
                  "read": 9082, "kept": 9060, "emitted": 9060, "dropped": {"over_context": 20, "control_text": 2},
                  "per_task": {"completion": {"samples": 3090, "tokens": 400000, "trained_tokens": 180000},
                               "docstring": {"samples": 2700, "tokens": 240000, "trained_tokens": 72345},
                               "text2code": {"samples": 2910, "tokens": 300765, "trained_tokens": 140000},
                               "usage": {"samples": 360, "tokens": 40000, "trained_tokens": 20000}},
                  "lengths": {"edges": [0, 64, 128, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960, 1024],
                              "counts": [1800, 2910, 1750, 990, 560, 340, 230, 150, 110, 70, 50, 35, 25, 18, 12, 10]}},
        "validation": {"samples": 457, "tokens": 50111, "trained_tokens": 21000, "rows": 50, "fill": 0.97873, "context": 1024,
                       "read": 459, "kept": 457, "emitted": 457, "dropped": {"over_context": 2},
                       "per_task": {"completion": {"samples": 158, "tokens": 20111, "trained_tokens": 9000}},
                       "lengths": {"edges": [0, 256, 512, 768, 1024], "counts": [390, 50, 12, 5]}},
    },
    "samples": SAMPLES,
    "memory": {"peak_rss_bytes": 1234567890, "peak_device_bytes": None},
}

MERGE: dict[str, Any] = {
    "tensors": 75, "merged": 56, "max_abs_diff": 0.0, "tolerance": 0.0, "reference": "base + adapter, row blocks in fp32",
    "kl": 3.21e-7, "top1_agreement": 0.99987, "peak_rss_bytes": 412345678, "anonymous_bytes": 61234567, "seconds": 0.81,
    "verify": "layers", "stage_seconds": {"hash": 0.11, "merge": 0.42, "verify": 0.28},
}

EVALUATION: dict[str, Any] = {
    "benchmark": "loss", "models": ["base", "train", "merged"],
    "tasks": {task: {"rows": 18 + index, "tokens": 5234 + index,
                     "loss": {"base": before + 0.000123, "train": after, "merged": after + 0.000045},
                     "difference": {"train": {"mean": after - before, "se": 0.0213},
                                    "merged": {"mean": after - before + 4e-5, "se": 0.0214}}}
              for index, (task, (before, after)) in enumerate(TASKS.items())},
    "overall": {"rows": 457, "tokens": 21000, "loss": {"base": 2.0456, "train": 1.6321, "merged": 1.6325},
                "difference": {"train": {"mean": -0.4135, "se": 0.0062}, "merged": {"mean": -0.4131, "se": 0.0062}}},
    "verdict": {"ok": True, "faults": [], "notes": ["task 'usage': few held-out rows"]},
    "protocol": {"measure": "mean negative log-likelihood", "context": 1024, "packed": True},
    "generations": [
        {"task": task, "id": f"{task}-{index}", "prompt": f"<s>human\nWhat does {task} do?\n<s>bot\n", "model": model,
         "finish_reason": "length" if task == "text2code" else "stop", "reference": "def f(x):\n    return x & 1\n",
         "completion": f"def f(x):\n    return x  # {model}\n" if model == "merged" else ""}
        for model in ("base", "merged") for index, task in enumerate(("completion", "docstring", "text2code"))],
}
EVALUATION["tasks"]["usage"]["loss"] = {"base": 1.9812, "train": 1.9702, "merged": 1.97031}
EVALUATION["tasks"]["usage"]["difference"] = {"train": {"mean": -0.011, "se": 0.021}, "merged": {"mean": -0.0109, "se": 0.021}}

CONFIG = "name: quickstart\nmodel:\n  base: tiny-code-llama\n  format: codefuse\n  context: 1024\n"


def metric_lines(steps: int = 120) -> list[dict[str, Any]]:
    """Log lines of a falling loss with some deterministic noise, an evaluation every 20 steps, one task absent at times."""
    lines, random = [], Random(7)
    for step in range(1, steps + 1):
        share = 1 - math.exp(-4 * step / steps)
        line: dict[str, Any] = {"step": step, "lr": 1e-3, "grad_norm": 0.5, "tokens_per_s": 6000 + step % 7, "seconds": 1.2 * step}
        for index, (task, (before, after)) in enumerate(TASKS.items()):
            noise = random.gauss(0, 0.06) * (2 if task == "usage" else 1)
            absent = task == "usage" and step % 3 == 0
            line[f"loss/task/{task}"] = 0.0 if absent else before + (after - before) * share + noise
            line[f"tokens/task/{task}"] = 0 if absent else 3000 + 100 * index
            line[f"weight/task/{task}"] = 0.25
        line["loss"] = sum(line[f"loss/task/{task}"] for task in TASKS) / (3 if step % 3 == 0 else 4)
        lines.append(line)
        if step % 20 == 0:
            held = {f"eval/loss/task/{task}": before + (after - before) * share + 0.02 for task, (before, after) in TASKS.items()}
            lines.append({"step": step, "eval/loss": sum(held.values()) / 4, **held})
    return lines


def write_run(folder: Path) -> Path:
    """Write the whole example into `folder`."""
    files = {"run.json": RUN, "data/manifest.json": MANIFEST, "train/run.json": TRAIN, "merged/merge.json": MERGE,
             "loss/result.json": EVALUATION}
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
    (folder / "train" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metric_lines()), encoding="utf-8")
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    return folder
