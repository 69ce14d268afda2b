"""Start the worker in the quantiser's environment and wait for it; what it says goes to a file."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from mft.errors import CheckFailed
from mft.quantization.config import AwqJob, GptqJob
from mft.quantization.environment import find_interpreter

WORKER = Path(__file__).with_name("worker.py")
LAST_LINES = 4


def run_worker(model: Path, rows: Path, out: Path, job: GptqJob | AwqJob, scratch: Path, log: Path) -> dict[str, Any]:
    """Let gptqmodel write weights and configs into `out`; returns what the worker tells: versions, device, seconds, damp, losses.

    Raises:
        DependencyError: there is no such environment. CheckFailed: the worker failed; the message has its last lines.
    """
    python = find_interpreter(job.label)
    scratch.mkdir(parents=True, exist_ok=True)
    facts = {"model": str(model.resolve()), "rows": str(rows), "out": str(out), "method": job.method, "bits": getattr(job, "bits", 4),
             "group_size": job.group_size, "desc_act": getattr(job, "desc_act", False), "damp": getattr(job, "damp", None),
             "scratch": str(scratch)}
    asked = scratch / "job.json"
    asked.write_text(json.dumps(facts), encoding="utf-8")
    # Nothing of ours on its path; a network is not asked for a tokenizer or a kernel.
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    variables |= {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("w", encoding="utf-8") as stream:
        child = subprocess.Popen([str(python), str(WORKER), str(asked)], stdout=stream, stderr=subprocess.STDOUT, env=variables,
                                 stdin=subprocess.DEVNULL)
        try:
            code = child.wait()
        except BaseException:
            child.send_signal(signal.SIGKILL)
            child.wait()
            raise
    told = out / "worker.json"
    if code or not told.is_file():
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise CheckFailed(f"{job.label}: the quantiser failed (exit {code}; all it said is in {log}):\n  "
                          + "\n  ".join(line[-300:] for line in lines[-LAST_LINES:]))
    result: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    told.unlink()
    return result
