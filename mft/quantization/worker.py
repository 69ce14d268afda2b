"""Runs in the quantiser's own environment: the one door to gptqmodel. Not imported by mft; started as a script, `worker.py JOB.json`.

JOB.json: `{model, rows, out, method, bits, group_size, desc_act, damp, scratch}`. Weights and their configs are written into `out`; then
`out`/worker.json: `{versions, device, seconds, damp (the largest that was used), modules, loss (by module)}`.
"""

import ctypes
import json
import os
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

FEWEST_CORES = 4
PR_SET_PDEATHSIG = 1


def main(path: str) -> None:
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    _end_with_parent()
    # gptqmodel shares the cores out among pools when it is imported, and fails where one of them would get none (7.6.0).
    cores = os.cpu_count() or 1
    os.cpu_count = lambda: max(FEWEST_CORES, cores)
    import torch
    from gptqmodel import GPTQModel
    from torch import manual_seed

    manual_seed(0)
    cuda = torch.cuda.is_available()
    model = GPTQModel.load(job["model"], _config(job), device="cuda:0" if cuda else "cpu")
    started = time.perf_counter()
    log = model.quantize(_rows(job["rows"]), batch_size=1, calibration_sort=None)
    seconds = time.perf_counter() - started
    model.save(job["out"])
    entries = [entry for entries in log.values() for entry in entries] if isinstance(log, dict) else list(log)
    facts = {
        "versions": {name: version(name) for name in ("gptqmodel", "torch", "transformers", "numpy")},
        "device": torch.cuda.get_device_name() if cuda else "cpu", "seconds": seconds, "modules": len(entries),
        "damp": max((float(entry["damp"]) for entry in entries if "damp" in entry), default=None),
        "loss": {f"{entry['layer']}.{entry['module']}": entry["loss"] for entry in entries if "loss" in entry},
    }
    Path(job["out"], "worker.json").write_text(json.dumps(facts), encoding="utf-8")


def _config(job: dict[str, Any]) -> Any:
    """All values given: gptqmodel's defaults have changed between versions."""
    from gptqmodel import QuantizeConfig

    scratch = {"offload_to_disk": True, "offload_to_disk_path": job["scratch"]}
    if job["method"] == "awq":
        return QuantizeConfig(method="awq", format="gemm", bits=job["bits"], group_size=job["group_size"], sym=False, **scratch)
    return QuantizeConfig(
        method="gptq", format="gptq", bits=job["bits"], group_size=job["group_size"], desc_act=job["desc_act"], act_group_aware=False,
        damp_percent=job["damp"], damp_auto_increment=0.01, sym=True, true_sequential=True, lm_head=False, static_groups=False, mse=0.0,
        fallback=None, **scratch)


def _rows(path: str) -> list[dict[str, Any]]:
    import torch

    lines = Path(path).read_text(encoding="utf-8").splitlines()
    rows = [torch.tensor([json.loads(line)["input_ids"]]) for line in lines]
    return [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows]


def _end_with_parent() -> None:
    """Be killed when the process that started this one is: it alone knows what to do with the result (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])
