"""A Slurm job: the script that sbatch takes, and handing it over.

One task a node, whose command is `mft launch --on torchrun`: it sees all GPUs of its node, passes a signal on to its ranks once, starts
them again after a failure without a new place in the queue, and not after a mistake of the user. A task for each GPU would end with
the first rank that fails, and Slurm would have to be told by an exit code whether it is worth another start.
"""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mft import __version__
from mft.errors import ConfigError, DependencyError, MftError
from mft.files import write_text
from mft.runs.launching.job import LaunchJob
from mft.runs.launching.nodes import NodeGroup
from mft.runs.launching.slurm_options import SlurmOptions, read_slurm_options

BODY = """
# Where the nodes meet: on the first of them, on a port by the number of the job, so that jobs on one node do not.
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST") || exit 1
export MFT_RENDEZVOUS="${nodes%%$'\\n'*}:$((20000 + SLURM_JOB_ID % 20000))"

# Slurm sends USR1 to this shell when the time is nearly over. The step is told by TERM, a request to save and stop to every process of it,
# and ends with 130. Not through srun: it passes USR1 on to all of them, which would end the ranks at once, and kills them at TERM.
out_of_time=0
trap 'out_of_time=1; trap "" USR1; scancel --signal=TERM "$SLURM_JOB_ID"' USR1

# SLURM_PROCID would make each task a rank; here it starts the ranks of its node. srun takes the cores of a task from its own option only.
COMMAND &
step=$!
wait "$step"
code=$?
if [ "$out_of_time" -eq 1 ]; then   # what ended then was the waiting
    wait "$step"
    code=$?
fi
"""

REQUEUE = """
# Saved, or stopped by the signal while it still loaded: the job goes back into the queue and its next start goes on from the checkpoint.
if [ "$out_of_time" -eq 1 ] && [ "$code" -ge 128 ]; then
    scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
"""


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """A script, where it is written, and the command that submits it."""

    path: Path
    text: str

    @property
    def command(self) -> list[str]:
        """What submits it."""
        return ["sbatch", "--parsable", str(self.path)]


def slurm_job(job: LaunchJob, group: NodeGroup, given: Sequence[str], environment: Mapping[str, str], path: Path | None) -> SlurmJob:
    """The job of a launch. `given`: KEY=VALUE of SlurmOptions; `path`: where the script goes.

    Raises:
        ConfigError: the options' mistakes, or a path that a line #SBATCH cannot hold.
    """
    options = read_slurm_options(given)
    logs = job.folder / f"{job.project.name}-%j.out"
    for name, value in (("the output", str(logs)), ("the working folder", str(Path.cwd()))):
        if any(character in value for character in "\"\\\n"):
            raise ConfigError([f"{value}: as {name} of a Slurm job, a path must be without quotes, backslashes and line breaks"])
    lines = [f"#SBATCH {line}" for line in _directives(job, group, options, logs)]
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    setup = ["", options.setup] if options.setup else []
    head = ["#!/bin/bash", f"# Written by mft {__version__}. To submit it: sbatch THIS-FILE", *lines, "", "set -u", *exports, *setup]
    text = "\n".join(head) + "\n" + BODY.replace("COMMAND", _srun(job, group)) + (REQUEUE if options.requeue else "") + 'exit "$code"\n'
    return SlurmJob((path or job.folder / f"{job.project.name}-{job.stage.name}.sbatch").absolute(), text)


def submit(script: SlurmJob) -> str:
    """Write the script and submit it; returns the number of the job.

    Raises:
        DependencyError: there is no sbatch here. MftError: sbatch refused it.
    """
    write_text(script.path, script.text)
    # Slurm does not make the folder of a job's output, and a job without one fails without a word.
    _log_folder(script).mkdir(parents=True, exist_ok=True)
    if shutil.which("sbatch") is None:
        raise DependencyError(f"sbatch is not on this machine's PATH; the script is written: on a machine of the cluster, run sbatch "
                              f"{shlex.quote(str(script.path))}")
    done = subprocess.run(script.command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MftError(f"sbatch refused {script.path}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip().partition(";")[0]


def _log_folder(script: SlurmJob) -> Path:
    line = next(line for line in script.text.splitlines() if line.startswith("#SBATCH --output="))
    return Path(line.partition("=")[2].strip('"').replace("%%", "%")).parent


def _directives(job: LaunchJob, group: NodeGroup, options: SlurmOptions, logs: Path) -> list[str]:
    """What Slurm is asked for."""
    asked = {"job-name": job.project.name, "nodes": group.nodes, "ntasks-per-node": 1, "cpus-per-task": options.cpus_per_task,
             "gpus-per-node": f"{options.gpu_type}:{group.ranks}" if options.gpu_type else group.ranks,
             "mem": options.mem, "time": options.time, "partition": options.partition, "account": options.account, "qos": options.qos,
             "constraint": options.constraint, "reservation": options.reservation, "exclude": options.exclude,
             "signal": f"B:USR1@{options.signal_seconds}"}
    if not options.gpus:
        del asked["gpus-per-node"]
    folder = str(logs.parent).replace("%", "%%")
    wanted = [f"--{name}={value}" for name, value in asked.items() if value is not None]
    return [*wanted, "--requeue" if options.requeue else "--no-requeue",
            "--open-mode=append", f'--chdir="{Path.cwd()}"', f'--output="{folder}/{logs.name}"']


def _srun(job: LaunchJob, group: NodeGroup) -> str:
    """The step of the job: this launch again, on each of its nodes."""
    inner = [sys.executable, "-m", "mft", "launch", str(job.config.resolve()), *job.overrides, "--on", "torchrun",
             "--nodes", str(group.nodes), "--gpus", str(group.ranks), "--stage", job.stage.name, "--out", str(job.out.resolve()),
             "--max-restarts", str(group.max_restarts)]
    meeting = ('--rendezvous "$MFT_RENDEZVOUS" --rendezvous-id "$SLURM_JOB_ID" '
               f"--wait-minutes {group.wait_minutes:g}") if group.nodes > 1 else ""
    return ('srun --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \\\n'
            f"    env -u SLURM_PROCID {shlex.join(inner)} {meeting}").rstrip()
