"""The script of a Slurm job: its text, and its body run by bash against programs that act as Slurm's."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training.test_training_resume import write_project

from mft.cli.main import main
from mft.errors import ConfigError, DependencyError, MftError
from mft.runs.launching.job import LaunchJob
from mft.runs.launching.nodes import NodeGroup
from mft.runs.launching.slurm_job import SlurmJob, slurm_job, submit
from mft.runs.launching.slurm_options import read_slurm_options
from mft.runs.launching.start import find_job

SRUN = """#!/bin/bash
# One task a node, on this machine. As srun: the exit code is the highest, and a task that fails ends the others.
echo $$ >"$FAKE_SLURM/step"
while [[ $1 == --* ]]; do shift; done
tasks=()
for ((task = 0; task < SLURM_NNODES; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=0 SLURM_STEP_NUM_TASKS=$SLURM_NNODES SLURM_STEP_NODELIST=localhost "$@" &
    tasks+=($!)
done
highest=0
for task in "${tasks[@]}"; do
    wait -n
    code=$?
    ((code > highest)) && highest=$code
    ((code)) && kill "${tasks[@]}" 2>/dev/null
done
exit "$highest"
"""
SCANCEL = f"""#!{sys.executable}
# As scancel --signal: every process of the step gets it, srun and the batch script do not.
import os, psutil, signal, sys
from pathlib import Path
number = signal.Signals["SIG" + sys.argv[1].removeprefix("--signal=")]
assert sys.argv[2] == os.environ["SLURM_JOB_ID"]
step = psutil.Process(int(Path(os.environ["FAKE_SLURM"], "step").read_text()))
for member in step.children(recursive=True):
    member.send_signal(number)
"""
SCONTROL = """#!/bin/bash
case "$1" in
show) printf '127.0.0.1\\n127.0.0.1\\n' ;;
requeue) echo "$2" >>"$FAKE_SLURM/requeued" ;;
*) exit 1 ;;
esac
"""
SBATCH = """#!/bin/bash
printf '%s\\n' "$@" >"$FAKE_SLURM/submitted"
[ -e "$FAKE_SLURM/refuse" ] && { echo 'sbatch: error: invalid partition specified: gpus' >&2; exit 1; }
echo '41;cluster'
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """A folder of programs named as Slurm's, first on PATH."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL), ("sbatch", SBATCH)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    return folder


def job_in(folder: Path, *overrides: str) -> LaunchJob:
    """A project in a folder whose name needs quoting."""
    folder.mkdir(exist_ok=True)
    config = write_project(folder / "it's a project", steps=12, every=0)
    return find_job(config, ["stages.train.distributed.engine=ddp", *overrides], None, config.parent / "out")


def script_of(job: LaunchJob, *given: str, nodes: int = 2) -> SlurmJob:
    return slurm_job(job, NodeGroup(nodes, 1), given, {"OMP_NUM_THREADS": "1", "NCCL_DEBUG": "WARN"}, None)


def test_the_script_asks_for_what_was_given_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = job_in(tmp_path / "100% mine")
    script = slurm_job(job, NodeGroup(4, 8), ["partition=gpu", "time=2-12", "cpus_per_task=32", "gpu_type=h200", "setup=module load cuda"],
                       {"OMP_NUM_THREADS": "1", "NCCL_SOCKET_IFNAME": "ib0"}, None)
    folder = f"{tmp_path}/100% mine/it's a project/out.launch"
    assert script.path == Path(folder, "resume-train.sbatch")
    head = script.text.split("\n\n# Where the nodes meet")[0].splitlines()
    assert head[0] == "#!/bin/bash"
    assert head[2:] == [
        "#SBATCH --job-name=resume", "#SBATCH --nodes=4", "#SBATCH --ntasks-per-node=1", "#SBATCH --cpus-per-task=32",
        "#SBATCH --gpus-per-node=h200:8", "#SBATCH --time=2-12", "#SBATCH --partition=gpu", "#SBATCH --signal=B:USR1@300",
        "#SBATCH --requeue", "#SBATCH --open-mode=append", f'#SBATCH --chdir="{tmp_path}"',
        f'#SBATCH --output="{folder.replace("%", "%%")}/resume-%j.out"', "", "set -u", "export OMP_NUM_THREADS=1",
        "export NCCL_SOCKET_IFNAME=ib0", "", "module load cuda"]


def test_without_gpus_and_requeue_the_script_has_neither(tmp_path):
    text = script_of(job_in(tmp_path / "a"), "gpus=false", "requeue=false").text
    assert "gpus-per-node" not in text
    assert "#SBATCH --no-requeue" in text
    assert "scontrol requeue" not in text


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_script_is_right_for_bash(nodes, tmp_path):
    script = tmp_path / "script"
    script.write_text(script_of(job_in(tmp_path / "a"), "setup=module load cuda", nodes=nodes).text)
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False).stderr == ""


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("given", [["setup=module load cuda"], ["requeue=false", "gpus=false"]], ids=["requeue", "no-requeue"])
@pytest.mark.parametrize("nodes", [1, 2])
def test_shellcheck_finds_nothing_in_the_script(nodes, given, tmp_path):
    script = tmp_path / "script"
    script.write_text(script_of(job_in(tmp_path / "a"), *given, nodes=nodes).text)
    checked = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize(("given", "message"), [
    ("partitio=gpu", "--slurm 'partitio=gpu': partitio: not a known key; did you mean 'partition'?"),
    ("time=tomorrow", "--slurm 'time=tomorrow': time: expected minutes, hours:minutes:seconds or days-hours, found 'tomorrow'"),
    ("time=6", "--slurm 'time=6': leaves no time to train before the signal, which comes up to 360 s before the end (signal_seconds)"),
    ("partition", "--slurm 'partition': expected key.sub=value"),
    ("signal_seconds=1", "--slurm 'signal_seconds=1': signal_seconds: expected at least 30, found 1"),
    ("account=a b", r"--slurm 'account=a b': account: expected text that matches ^[^\s\"'\\]+$, found 'a b'")])
def test_a_mistake_in_an_option_is_named(given, message):
    with pytest.raises(ConfigError) as caught:
        read_slurm_options([given])
    assert str(caught.value) == message


def test_a_path_that_a_directive_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="a path must be without quotes, backslashes and line breaks"):
        script_of(job_in(tmp_path / 'a"b'))


def test_the_script_is_written_and_submitted(tmp_path, slurm):
    script = script_of(job_in(tmp_path / "a"))
    assert submit(script) == "41"
    assert script.path.read_text() == script.text
    assert (slurm / "submitted").read_text().splitlines() == ["--parsable", str(script.path)]


def test_a_script_elsewhere_still_has_the_folder_of_its_output(tmp_path, slurm):
    job = job_in(tmp_path / "100%")
    submit(slurm_job(job, NodeGroup(2, 1), [], {}, tmp_path / "elsewhere" / "script"))
    assert (tmp_path / "elsewhere" / "script").is_file()
    assert (tmp_path / "100%" / "it's a project" / "out.launch").is_dir()


def test_what_sbatch_refuses_is_told_in_its_words(tmp_path, slurm):
    (slurm / "refuse").touch()
    with pytest.raises(MftError, match=r"sbatch refused .*resume-train.sbatch: sbatch: error: invalid partition specified: gpus"):
        submit(script_of(job_in(tmp_path / "a")))


def test_without_sbatch_the_script_stays_and_the_message_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    script = script_of(job_in(tmp_path / "a"))
    with pytest.raises(DependencyError, match="sbatch is not on this machine's PATH; the script is written: on a machine of the cluster"):
        submit(script)
    assert script.path.read_text() == script.text


STEP = """#!/bin/bash
echo $$ >"$FAKE_SLURM/step"
bash -c '
trap "echo told >>\"$FAKE_SLURM/told\"; sleep 0.3; exit AFTER" TERM
touch "$FAKE_SLURM/runs"
for ((i = 0; i < TENTHS; i++)); do sleep 0.1; done
exit CODE'
"""


def body(slurm: Path, script: SlurmJob, number: int) -> subprocess.Popen:
    """The script as Slurm runs it: job `number` of two nodes."""
    script.path.parent.mkdir(parents=True, exist_ok=True)
    script.path.write_text(script.text)
    environment = {**os.environ, "SLURM_JOB_ID": str(number), "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NNODES": "2", "SLURM_PROCID": "0",
                   "SLURM_NTASKS": "2", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(["bash", script.path], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(("after", "ends", "requeued"), [
    (130, 0, True),      # saved
    (143, 0, True),      # ended by the signal while it still loaded
    (0, 0, False),       # finished in spite of the signal
    (3, 3, False)])      # found a fault of its own: starting it again would not help
def test_at_the_end_of_the_time_a_job_goes_back_into_the_queue_if_it_was_stopped(after, ends, requeued, tmp_path, slurm):
    (slurm / "srun").write_text(STEP.replace("AFTER", str(after)).replace("TENTHS", "300").replace("CODE", "0"))
    process = body(slurm, script_of(job_in(tmp_path / "a")), 7)
    while not (slurm / "runs").is_file():
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=60)
    assert (process.returncode, (slurm / "requeued").is_file()) == (ends, requeued)
    assert (slurm / "told").read_text() == "told\n"


@pytest.mark.parametrize("code", [0, 2, 3, 130, 137])
def test_without_a_signal_the_job_ends_as_its_step_and_stays_out_of_the_queue(code, tmp_path, slurm):
    (slurm / "srun").write_text(STEP.replace("AFTER", "9").replace("TENTHS", "1").replace("CODE", str(code)))
    process = body(slurm, script_of(job_in(tmp_path / "a")), 7)
    process.communicate(timeout=60)
    assert (process.returncode, (slurm / "requeued").is_file()) == (code, False)


def free_job() -> int:
    """A job number whose port is free."""
    for number in range(os.getpid() % 19_000, 20_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 20_000 + number)):
                return number
    raise AssertionError("no free port")


@pytest.mark.slow
def test_the_body_trains_on_two_nodes_saves_at_the_signal_and_its_next_start_finishes(tmp_path, slurm):
    job = job_in(tmp_path / "a", "stages.train.training.max_steps=30")
    script, number, run = script_of(job), free_job(), job.out / "train"
    process = body(slurm, script, number)
    deadline = time.monotonic() + 600
    while not (run / "metrics.jsonl").is_file() or (run / "metrics.jsonl").read_text().count('"lr"') < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert (slurm / "requeued").read_text() == f"{number}\n"
    (checkpoint,) = run.glob("checkpoint-*")
    assert 4 <= int(checkpoint.name.removeprefix("checkpoint-")) < 30
    assert "stopped by a signal after step" in output
    again = body(slurm, script, number)
    output, _ = again.communicate(timeout=600)
    assert again.returncode == 0, output
    record = json.loads((run / "run.json").read_text())
    assert (record["steps"], record["ranks"], record["resumed_from"]) == (30, 2, str(checkpoint))
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines() if '"lr"' in line] == list(range(1, 31))
    assert (slurm / "requeued").read_text() == f"{number}\n"


def test_dry_run_prints_the_script_and_touches_nothing(tmp_path, monkeypatch, capsys):
    config = write_project(tmp_path / "project", steps=12, every=0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["--json", "launch", str(config), "--on", "slurm", "--nodes", "2", "--gpus", "8", "--dry-run", "--interface", "ib0",
              "stages.train.distributed.engine=ddp", "stages.train.training.global_batch_rows=64"])
    printed = capsys.readouterr()
    assert ended.value.code == 0, printed.err
    facts = json.loads(printed.out)
    assert (facts["on"], facts["nodes"], facts["ranks"], facts["started"]) == ("slurm", 2, 16, False)
    assert facts["script"]["path"] == str(tmp_path / "runs" / "resume.launch" / "resume-train.sbatch")
    assert "export NCCL_SOCKET_IFNAME=ib0\nexport GLOO_SOCKET_IFNAME=ib0\n" in facts["script"]["text"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["project"]
