"""`mft plan`: what a project's train stages take, by the command line and by hand."""

import json
import re
import shlex
from pathlib import Path

import pytest

from mft.cli.main import main
from mft.errors import ConfigError, ModelError
from mft.modeling.devices import named_accelerator
from mft.runs.config import load_project
from mft.runs.importing.importer import import_config, write_imported
from mft.runs.plan_text import headline
from mft.runs.planning import PlanOptions, device_named, plan_project
from mft.runs.shipped import shipped_config, shipped_configs

CONFIGS = shipped_config("quickstart.yaml").parent
SHIPPED = [path for path in shipped_configs() if any(stage.kind == "train" for stage in load_project(path).stages)]
FOUR, SIXTEEN = CONFIGS / "codefuse-codellama-34b-4k.yaml", CONFIGS / "codefuse-codellama-34b-16k.yaml"
RANK_64 = ["stages.train.adapter.rank=64", "stages.train.adapter.targets=all-linear", "stages.train.training.micro_batch_rows=1"]


def planned(path, *overrides, out=Path("nowhere"), **options):
    return plan_project(load_project(path, list(overrides)), path.parent, out, PlanOptions(**options))


def asked(capsys, *arguments):
    """Exit code and JSON of `mft --json plan ...`."""
    with pytest.raises(SystemExit) as ended:
        main(["--json", "plan", *map(str, arguments)])
    return ended.value.code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_is_planned_and_its_header_says_what_the_plan_says(path):
    header = path.read_text(encoding="utf-8").partition("\nname:")[0]
    quoted = re.search(r"^# plan: `mft plan configs/(\S+) --gpu (\S+)`\n#   (.*)$", header, re.MULTILINE)
    assert quoted is not None
    assert quoted[1] == path.name
    plans = planned(path, gpu=quoted[2])
    assert quoted[3] == headline(max(plans, key=lambda plan: plan.memory.total))
    assert all(plan.fits for plan in plans)


@pytest.mark.parametrize(("path", "recompute", "activations", "total"), [
    # By hand, in GB: weights 18.2; adapter, gradients, Adam of r64: 16 bytes x 435.7M = 6.97, DDP's buckets 1.74, runtime 0.6: 27.5.
    # Kept: 48 x 16 kB checkpoints = 0.79 MB a token, last norm and head 0.05; one layer again, 449 kB a token, in the workspace.
    (FOUR, True, 3.44, 33.8), (SIXTEEN, True, 13.7, 51.6),
    # Nothing recomputed, dropout 0.05: per layer and token 66 kB norms, 37 kB attention, 132 kB MLP, 214 kB inputs of A and masks: 21.6 MB.
    (FOUR, False, 89.2, 117.7), (SIXTEEN, False, 354.9, 385.5)])
def test_the_34b_shape_takes_what_arithmetic_by_hand_says(path, recompute, activations, total):
    plan, = planned(path, *RANK_64, f"stages.train.training.recompute={'full' if recompute else 'none'}", gpu="A100-80G")
    assert plan.memory.weights == pytest.approx(18.2e9, rel=0.01)
    assert plan.memory.adapters + plan.memory.gradients + plan.memory.optimizer == 16 * 435_683_328
    assert plan.memory.activations == pytest.approx(activations * 1e9, rel=0.05)
    assert plan.memory.total == pytest.approx(total * 1e9, rel=0.05)


def test_what_does_not_fit_is_exit_code_3_with_the_plan_and_a_way_out(capsys):
    code, facts = asked(capsys, FOUR, "--gpu", "A100-80G", "stages.train.training.recompute=none")
    assert code == 3
    assert facts["fits"] is False
    assert facts["memory_bytes"]["total"] > 180e9
    assert facts["error"].endswith("fits: stages.train.training.recompute=full stages.train.training.micro_batch_rows=2")
    code, facts = asked(capsys, FOUR, "--gpu", "RTX4090", "--gpus", "1")
    assert code == 3
    assert "no micro-batch, no recomputation and no engine helps" in facts["error"]
    assert "over several GPUs deepspeed with zero_stage: 3 shards it" in facts["error"]


def settings(error):
    """The overrides that a plan which does not fit proposes."""
    return shlex.split(error.split("; fits: ")[1].split("; stage ")[0])


@pytest.mark.parametrize(("path", "overrides", "gpu"), [
    (FOUR, [], "RTX4090"),                                        # sharding alone helps
    (CONFIGS / "codellama-70b-instruct-domain.yaml", [], "RTX4090"),   # and no rank could answer prompts then
    (SIXTEEN, ["stages.train.training.recompute=none"], "A100-80G")])
def test_what_a_plan_proposes_is_a_command_line_that_fits(path, overrides, gpu, capsys):
    code, facts = asked(capsys, path, "--gpu", gpu, *overrides)
    assert code == 3
    proposed = settings(facts["error"])
    assert asked(capsys, path, "--gpu", gpu, *overrides, *proposed)[0] == 0, proposed


def test_the_choices_are_micro_batch_recomputation_context_engine_and_zero_stage(capsys):
    _, facts = asked(capsys, FOUR, "--gpu", "A100-80G")
    kinds = {(choice["engine"], choice["zero_stage"], choice["micro_batch_rows"], choice["context"], choice["recompute"])
             for choice in facts["stages"][0]["choices"]}
    own = {("ddp", None, rows, context, recompute) for rows, context in [(1, 4096), (2, 4096), (1, 8192), (1, 16384)]
           for recompute in (False, True)}
    # fsdp is left out: it does not shard a 4-bit base
    zero = {("deepspeed", stage, rows, 4096, recompute) for stage in (1, 2, 3) for rows in (1, 2) for recompute in (False, True)}
    assert kinds == own | zero
    alone, = planned(CONFIGS / "my-repository.yaml", gpu="H200")
    assert {choice.distributed.engine for choice in alone.others} == {"none"}
    bf16, = planned(FOUR, "stages.train.quantization.type=none", gpu="H200")
    assert "fsdp" in {choice.distributed.engine for choice in bf16.others}
    rows, = planned(FOUR, 'model.add_tokens=["<|x|>"]', gpu="H200")
    assert {choice.distributed.stage for choice in rows.others} == {0, 1, 2}   # new rows of an embedding do not train sharded


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_settings_that_a_header_proposes_are_not_refused(path):
    """`KEY=VALUE`, or `KEY=VALUE` and `KEY=VALUE` together."""
    header = re.sub(r"\n# *", " ", path.read_text(encoding="utf-8").partition("\nname:")[0])
    for group in re.findall(r"((?:`[a-z_]+\.[^`\s]+=[^`]+`(?: and )?)+)", header):
        overrides = re.findall(r"`([^`]+)`", group)
        if all(override.startswith(("stages.", "model.", "tracking.")) for override in overrides):
            assert planned(path, *overrides, gpu="H200")


def test_the_json_of_a_plan_has_the_keys_of_the_contract(capsys):
    code, facts = asked(capsys, FOUR, "--gpu", "H200", "--tokens", 300_000_000, "--tokens-per-second", 10_000, "--price", 2.5)
    assert code == 0
    assert {"memory_bytes", "steps", "tokens_per_step", "fits"} <= facts.keys()
    # 73,243 rows (300M / 4096, rounded up) in steps of 16: 4,578 an epoch, 8 epochs
    assert (facts["steps"], facts["tokens_per_step"]) == (36_624, 65_536)
    assert facts["hours"] == pytest.approx(36_624 * 65_536 / 10_000 / 3600)
    assert facts["cost"] == pytest.approx(facts["hours"] * 8 * 2.5)
    assert sum(facts["memory_bytes"][part] for part in ("weights", "adapters", "gradients", "optimizer", "communication", "activations",
                                                         "runtime")) < facts["memory_bytes"]["total"]


def test_a_plan_needs_neither_base_nor_data_but_says_what_it_does_not_know(capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _, facts = asked(capsys, FOUR, "--gpu", "H200")
    stage, = facts["stages"]
    assert (stage["steps"], stage["hours"], stage["cost"]) == (None, None, None)
    assert "mft train CONFIG --dry-run" in stage["data"]
    assert "not on this machine" in stage["base"]


def test_what_cannot_run_is_refused_at_once(capsys):
    code, facts = asked(capsys, FOUR, "--gpus", 3, "model.context=32768", "stages.train.distributed.engine=fsdp")
    assert code == 2
    assert "model.context is 32768" in facts["error"]
    assert "which 3 ranks with micro_batch_rows 2 cannot share" in facts["error"]
    assert "sharded 4-bit weights" in facts["error"]


@pytest.mark.parametrize(("name", "fault"), [
    ("H20", "--gpu H20: not known; did you mean H200?"), ("A100", "--gpu A100: which one? A100-40G, A100-80G"),
    ("big", "or give its memory, as in --gpu 48GiB")])
def test_an_unknown_gpu_is_named_with_those_that_are_known(name, fault):
    with pytest.raises(ConfigError, match=re.escape(fault)):
        device_named(name)


def test_a_gpu_is_found_by_its_name_or_given_by_its_size():
    assert named_accelerator("h200").memory_bytes == 143_771 * 2**20
    assert device_named("RTX4090").memory_bytes == 24_564 * 2**20
    assert device_named("48GiB").memory_bytes == 48 * 2**30
    assert device_named("80GB").memory_bytes == 80 * 10**9


def test_a_base_that_is_nowhere_is_named(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"someone/else: not a folder here, not in the hub's cache, and the hub did not give"):
        planned(FOUR, "model.base=someone/else", gpu="H200")


def test_zero_3_shards_the_base_and_ddp_does_not():
    zero = "stages.train.distributed={engine: deepspeed, zero_stage: 3, processes: 8}"
    whole, = planned(FOUR, gpu="H200")
    shard, = planned(FOUR, zero, gpu="H200")
    # An eighth of the 4-bit weights, the constants of their blocks on each rank, 1 GB gathered, 2 GB of buckets.
    assert shard.memory.weights == pytest.approx((18.19e9 - 0.52e9) / 8 + 0.52e9, rel=0.01)
    assert shard.memory.weights + shard.memory.communication < whole.memory.weights


def test_mftcoders_configs_are_imported_and_planned(tmp_path):
    values = {"data_paths": "[/data/evol]", "pretrained_model_path": "codellama/CodeLlama-34b-Python-hf", "output_dir": "/out",
              "data_split": "95,5", "padding_mode": "pack", "weighted_loss_mode": "case3", "model_type": "llama", "peft_type": "qlora",
              "quantization": "4bit", "lora_rank": 32, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1,
              "learning_rate": 1e-4, "num_train_epochs": 8, "seq_length": 4096, "vocab_file": "/models/34b", "evalation_steps": 1000}
    path = tmp_path / "train_config.json"
    path.write_text(json.dumps(values))
    ours = tmp_path / "ours.yaml"
    result = import_config("mftcoder", path, out=ours, gpus=8)
    write_imported(result, ours)
    plan, = planned(ours, gpu="A100-80G", gpus=8)
    assert plan.fits
    assert (plan.devices, plan.tokens_per_step, plan.trained_parameters) == (8, 65_536, 203_685_888)


def test_encoded_data_gives_the_steps(tmp_path, capsys):
    text = (CONFIGS / "quickstart.yaml").read_text(encoding="utf-8").replace("max_steps: 40 ", "max_steps: null ")
    (tmp_path / "rows.jsonl").write_text("".join(
        json.dumps({"messages": [{"role": "user", "content": f"Double {n}?"}, {"role": "assistant", "content": str(2 * n)}]}) + "\n"
        for n in range(40)), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text("name: rows\ntasks:\n  double: {sources: [{type: jsonl, path: rows.jsonl}]}\n"
                                          "split: {validation: 0.1, by: id}\n")
    config = tmp_path / "config.yaml"
    config.write_text(text.replace("../data_recipes/python-stdlib.yaml", "recipe.yaml").replace("context: 1024", "context: 128"))
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        main(["--json", "train", str(config), "--out", str(out), "--dry-run"])
    printed = capsys.readouterr()
    assert ended.value.code == 0, printed.err
    dry = json.loads(printed.out)
    code, facts = asked(capsys, config, "--out", out, "--gpu", "H200")
    assert code == 0
    assert facts["steps"] == dry["steps"]
    assert facts["stages"][0]["rows"] == dry["rows"]


def test_what_is_measured_on_one_device_counts_for_all_of_them(capsys, monkeypatch):
    """ZeRO-3 on 8 GPUs: the config says so, no --gpus is given."""
    measured = {"tokens_per_s": 500.0, "steps": 6, "measured_bytes": 10**9, "predicted_bytes": None}
    monkeypatch.setattr("mft.runs.calibrate.calibrate_stages", lambda project, names: dict.fromkeys(names, measured))
    config = CONFIGS / "deepseek-coder-33b.yaml"
    _, facts = asked(capsys, config, "--calibrate", "--tokens", 8_192_000)
    assert facts["devices"] == 8
    assert facts["stages"][0]["tokens_per_s"] == 4000.0
    _, facts = asked(capsys, config, "--calibrate", "--tokens", 8_192_000, "--gpus", 4)
    assert facts["stages"][0]["tokens_per_s"] == 2000.0


def test_another_device_than_the_one_that_is_measured_is_refused(capsys):
    import torch

    here = torch.cuda.get_device_name() if torch.cuda.is_available() else "this machine's CPU"
    code, facts = asked(capsys, FOUR, "--calibrate", "--gpu", "RTX4090")
    assert (code, facts["error"]) == (2, f"--calibrate: measures {here}, and --gpu is RTX4090: leave --gpu out, or calibrate where there "
                                         "is one")


@pytest.mark.slow
def test_calibration_trains_a_few_steps_and_leaves_nothing_behind(tmp_path, capsys):
    out = tmp_path / "out"
    code, facts = asked(capsys, CONFIGS / "quickstart.yaml", "--out", out, "--calibrate", "model.context=256")
    assert code == 0
    measured = facts["calibration"]["train"]
    assert measured["steps"] == 6
    assert measured["tokens_per_s"] > 0
    assert facts["hours"] == pytest.approx(40 * 8 * 256 / measured["tokens_per_s"] / 3600)
    assert measured["measured_bytes"] > 0
    assert not list(out.glob(".calibration*"))
    assert not (out / "train").exists()
