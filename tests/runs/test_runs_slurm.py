"""`srun mft train` joins as torchrun's processes do."""

import json
import os
import subprocess
import sys

import pytest
from training.test_training_resume import write_project

from mft.errors import ConfigError
from mft.runs.slurm import first_node, join_slurm

STEP = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "gpu[007-008]",
        "SLURM_JOB_ID": "41007"}


def joined(**values):
    environment = {**values}
    join_slurm(environment)
    return {name: environment.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}


def test_a_task_of_a_step_is_a_rank():
    assert joined(**STEP) == {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu007", "MASTER_PORT": "21007"}
    assert joined(**STEP, MASTER_ADDR="10.0.0.1", MASTER_PORT="5")["MASTER_ADDR"] == "10.0.0.1"


def test_what_torchrun_has_set_stands_and_a_batch_script_is_one_process():
    assert joined(**STEP, RANK="3")["RANK"] == "3"
    assert joined(SLURM_NTASKS="16", SLURM_PROCID="0")["RANK"] is None
    assert joined()["RANK"] is None


def test_without_a_list_of_nodes_the_message_says_what_to_set():
    with pytest.raises(ConfigError, match="set MASTER_ADDR"):
        first_node("")


@pytest.mark.slow
def test_two_tasks_of_a_step_train_together(tmp_path):
    config = write_project(tmp_path / "project", steps=3, every=2)
    command = [sys.executable, "-m", "mft", "-q", "--json", "train", str(config), "--out", str(tmp_path / "out"),
               "stages.train.distributed.engine=ddp"]
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={
        **os.environ, "OMP_NUM_THREADS": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
        "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": "7"}) for rank in range(2)]
    ends = [process.communicate(timeout=300) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], ends
    assert json.loads(ends[0][0])["ranks"] == 2
    assert ends[1][0] == ""
