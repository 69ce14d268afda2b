"""Going on with a full model whose weights ZeRO-3 has sharded."""

import os
import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
import sys, torch, deepspeed
from pathlib import Path
from safetensors.torch import save_file
from mft.modeling.start import load_start
deepspeed.init_distributed("gloo")
folder = Path(sys.argv[1])
save_file({"weight": torch.arange(32.0).view(4, 8), "bias": torch.full((4,), 7.0)}, folder / "model.safetensors")
with deepspeed.zero.Init(config_dict_or_path={"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}):
    model = torch.nn.Linear(8, 4)
assert model.weight.numel() == 0
load_start(model, folder)
assert model.weight.numel() == 0
with deepspeed.zero.GatheredParameters(list(model.parameters())):
    assert torch.equal(model.weight, torch.arange(32.0).view(4, 8)), model.weight
    assert model.bias.tolist() == [7.0] * 4
torch.distributed.destroy_process_group()
print("sharded weights are right")
"""


@pytest.mark.slow
def test_weights_reach_sharded_parameters_which_stay_sharded(tmp_path):
    pytest.importorskip("deepspeed")
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29617",
                   "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, tmp_path / "script.py", tmp_path], env=environment, capture_output=True, text=True, timeout=300)
    assert "sharded weights are right" in done.stdout, done.stderr[-2000:]
