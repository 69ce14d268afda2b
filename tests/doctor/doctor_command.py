"""Running `mft doctor` as a user would, in environments that are really broken."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "configs" / "quickstart.yaml"
UNSET = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "GLOO_SOCKET_IFNAME",
         "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "PYTHONPATH", "OMP_NUM_THREADS")


class Answer:
    """Exit code, the JSON object, and the checks by name."""

    def __init__(self, ended: "subprocess.CompletedProcess[str]") -> None:
        self.code = ended.returncode
        self.stderr = ended.stderr
        self.result: dict[str, Any] = json.loads(ended.stdout)
        self.checks = {check["name"]: check for check in self.result.get("checks", [])}

    def state(self, name: str) -> str:
        return str(self.checks[name]["state"])

    def told(self, name: str) -> str:
        """What was found, and the remedy."""
        return f"{self.checks[name]['found']} -> {self.checks[name]['remedy']}"


def doctor(*arguments: object, only: Sequence[str] = (), before: Sequence[str] = (), timeout_s: float = 300,
           environment: Mapping[str, str] | None = None) -> Answer:
    """`mft --json doctor` with these arguments. `before`: a command that makes the environment and runs the rest."""
    inherited = {name: value for name, value in os.environ.items() if name not in UNSET and not name.startswith(("ACCELERATE_", "SLURM_"))}
    command = [*before, sys.executable, "-m", "mft", "--json", "doctor", *map(str, arguments)]
    command += [word for name in only for word in ("--only", name)]
    ended = subprocess.run(command, cwd=ROOT, env={**inherited, "OMP_NUM_THREADS": "1", **(environment or {})}, capture_output=True,
                           text=True, timeout=timeout_s, check=False)
    assert ended.stdout, ended.stderr
    return Answer(ended)


@cache
def _mount_command() -> list[str] | None:
    """How a process gets mounts of its own here: as root, or as root of a user namespace."""
    for options in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        command = ["unshare", *options]
        try:
            ended = subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, timeout=20, check=False)
        except OSError:
            return None
        if ended.returncode == 0:
            return command
    return None


def with_mounts(*mounts: str) -> list[str]:
    """The words before a command that sees these mounts (arguments of `mount`); nothing outside of it does."""
    command = _mount_command()
    if command is None:
        pytest.skip("this machine lets nobody mount: unshare --mount is missing or not permitted")
    script = "".join(f"mount {mount} && " for mount in mounts) + 'exec "$@"'
    return [*command, "sh", "-c", script, "sh"]


def with_limit(limit: str) -> list[str]:
    """The words before a command that runs under a limit of `ulimit`: `-n 128`."""
    return ["sh", "-c", f'ulimit {limit} && exec "$@"', "sh"]
