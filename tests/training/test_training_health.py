"""A loss or gradient that is not finite stops the run or is skipped, and a loss that jumps is told; rows are always named."""

import json
import logging
import os
import socket
import subprocess
import sys

import pytest
import torch
from training.linear_trainer import LinearTrainer

from mft.errors import TrainingStopped
from mft.training.config import EarlyStoppingConfig, HealthConfig, TrainingConfig
from mft.training.health import StepHealth, health_faults

NAN, INF = float("nan"), float("inf")


def state_of(trainer):
    optimizer = trainer.optimizer.state_dict()["state"]
    return [trainer.model.weight.item(), trainer.model.bias.item(),
            *(float(value) for slot in optimizer.values() for value in slot.values())]


def test_a_nan_loss_stops_before_the_weights_change_and_names_its_rows(tmp_path):
    trainer = LinearTrainer(tmp_path, health=StepHealth(HealthConfig(), tmp_path), poison={"r3": NAN})
    with pytest.raises(TrainingStopped, match=r"step 2: the loss .* \(rank 0 micro-batch 1: nan\); losses by task: a 1\.5, b nan"):
        trainer.train()
    assert TrainingStopped.exit_code == 3
    assert torch.isfinite(trainer.model.weight).all()
    assert trainer.state.global_step == 1
    (event,) = json.loads((tmp_path / "nonfinite.json").read_text())["steps"]
    assert event["step"] == 2
    assert event["action"] == "stopped"
    assert event["grad_norm"] == "nan"
    assert event["task_losses"] == {"a": 1.5, "b": "nan"}
    assert [(batch["rank"], batch["micro_batch"], batch["rows"]) for batch in event["micro_batches"]] == [(0, 0, ["r2"]), (0, 1, ["r3"])]
    assert isinstance(event["micro_batches"][0]["loss"], float)
    assert event["micro_batches"][1]["loss"] == "nan"


def test_a_gradient_that_is_not_finite_where_the_losses_are_stops_too(tmp_path):
    trainer = LinearTrainer(tmp_path, health=StepHealth(HealthConfig(), tmp_path))
    trainer.model.weight.register_hook(lambda gradient: gradient * INF)
    with pytest.raises(TrainingStopped, match=r"step 1: the gradient norm is (inf|nan), every loss is finite"):
        trainer.train()


def test_a_skipped_step_changes_neither_weights_nor_adam_while_the_schedule_goes_on(tmp_path, caplog):
    seen = {}

    class Watch(StepHealth):
        def on_step_end(self, args, state, control, **_):
            seen[state.global_step] = (state_of(trainer), trainer.lr_scheduler.get_last_lr()[0])

    trainer = LinearTrainer(tmp_path, health=Watch(HealthConfig(on_nonfinite="skip"), tmp_path), poison={"r4": INF})
    with caplog.at_level(logging.WARNING, "mft"):
        trainer.train()
    assert seen[3][0] == seen[2][0]
    assert seen[2][0] != seen[1][0]
    assert seen[4][0] != seen[3][0]
    assert [round(seen[step][1], 6) for step in (1, 2, 3, 4)] == [0.0375, 0.025, 0.0125, 0.0]
    assert trainer.health.skipped == 1
    assert "the step was skipped, 1 so far" in caplog.text
    (event,) = json.loads((tmp_path / "nonfinite.json").read_text())["steps"]
    assert (event["step"], event["action"], [batch["rows"] for batch in event["micro_batches"]]) == (3, "skipped", [["r4"], ["r5"]])


def test_a_skipped_step_leaves_no_trace_in_the_logged_losses(tmp_path):
    def losses(every):
        health = StepHealth(HealthConfig(on_nonfinite="skip"), tmp_path)
        trainer = LinearTrainer(tmp_path, health=health, poison={"r4": NAN}, steps=6, logging_steps=every)
        trainer.train()
        return {line["step"]: line["loss"] for line in trainer.state.log_history if "loss" in line}

    single, by_three = losses(1), losses(3)
    assert list(single) == [1, 2, 4, 5, 6]
    assert by_three == {3: pytest.approx((single[1] + single[2]) / 2), 6: pytest.approx((single[4] + single[5] + single[6]) / 3)}


def test_ten_steps_are_skipped_in_a_row_and_the_eleventh_stops(tmp_path):
    health = StepHealth(HealthConfig(on_nonfinite="skip"), tmp_path)
    trainer = LinearTrainer(tmp_path, health=health, poison={f"r{row}": NAN for row in range(6, 64)}, steps=30)
    with pytest.raises(TrainingStopped, match=r"step 14: .*10 steps before it were skipped in a row"):
        trainer.train()
    events = json.loads((tmp_path / "nonfinite.json").read_text())["steps"]
    assert [(event["step"], event["action"]) for event in events] == [*((step, "skipped") for step in range(4, 14)), (14, "stopped")]


def test_skips_with_good_steps_between_them_do_not_stop(tmp_path):
    health = StepHealth(HealthConfig(on_nonfinite="skip"), tmp_path)
    trainer = LinearTrainer(tmp_path, health=health, poison={f"r{row}": NAN for row in range(0, 60, 4)}, steps=30)
    trainer.train()
    assert health.skipped == 15


def test_under_fp16_an_overflow_is_left_to_the_loss_scaler_but_not_for_ever(tmp_path):
    health = StepHealth(HealthConfig(), tmp_path, fp16=True)
    parameter = torch.nn.Parameter(torch.ones(1))
    for _ in range(30):
        parameter.grad = torch.ones(1)
        health.micro_batch(torch.tensor(1.0), list)
        assert health.step(torch.tensor(INF), [parameter])
        assert parameter.grad is not None
    with pytest.raises(TrainingStopped, match="the gradient norm is inf"):
        health.step(torch.tensor(INF), [parameter])
    fresh = StepHealth(HealthConfig(), tmp_path, fp16=True)
    fresh.micro_batch(torch.tensor(NAN), list)
    with pytest.raises(TrainingStopped, match="the loss is not finite"):
        fresh.step(torch.tensor(1.0), [parameter])


def test_steps_that_a_resumed_run_makes_again_replace_those_written_down_before(tmp_path):
    def fail_at(step):
        health = StepHealth(HealthConfig(), tmp_path)
        health._step = step
        health.micro_batch(torch.tensor(NAN), lambda: [f"at-{step}"])
        with pytest.raises(TrainingStopped):
            health.step(1.0, [])
        return [event["step"] for event in json.loads((tmp_path / "nonfinite.json").read_text())["steps"]]

    assert [fail_at(5), fail_at(9), fail_at(7)] == [[5], [5, 9], [5, 7]]


def log_losses(health, losses, start=1):
    for step, loss in enumerate(losses, start=start):
        health._step = step
        health.micro_batch(torch.tensor(loss), lambda step=step: [f"row-{step}"])
        health.logged(step, loss)


def test_a_spike_gives_one_warning_with_its_rows_and_no_stop(tmp_path, caplog):
    health = StepHealth(HealthConfig(), tmp_path)
    with caplog.at_level(logging.WARNING, "mft"):
        log_losses(health, [1.0] * 10 + [2.9, 3.5, 3.6, 1.0, 4.0])
    lines = [json.loads(line) for line in (tmp_path / "loss-spikes.jsonl").read_text().splitlines()]
    assert lines == [{"step": 12, "loss": 3.5, "median": 1.0, "rows": {"12": ["row-12"]}},
                     {"step": 15, "loss": 4.0, "median": 1.0, "rows": {"15": ["row-15"]}}]
    assert len(caplog.records) == 2
    assert "step 12: the loss is 3.5, 3.5 times the median of the 11 before it (1); rows: row-12; all of them" in caplog.text


def test_the_rows_of_all_steps_since_the_last_log_are_named_and_few_losses_are_no_history(tmp_path):
    health = StepHealth(HealthConfig(), tmp_path)
    log_losses(health, [1.0] * 9 + [50.0])
    assert not (tmp_path / "loss-spikes.jsonl").exists()
    for step in (11, 12):
        health._step = step
        health.micro_batch(torch.tensor(9.0), lambda step=step: [f"row-{step}"])
    health.logged(12, 9.0)
    assert json.loads((tmp_path / "loss-spikes.jsonl").read_text())["rows"] == {"11": ["row-11"], "12": ["row-12"]}


def test_a_factor_of_zero_gives_no_notice(tmp_path):
    log_losses(StepHealth(HealthConfig(spike_factor=0), tmp_path), [1.0] * 20 + [1000.0])
    assert not (tmp_path / "loss-spikes.jsonl").exists()


def test_history_and_counters_are_in_the_checkpoint_and_come_back(tmp_path):
    health = StepHealth(HealthConfig(on_nonfinite="skip"), tmp_path)
    LinearTrainer(tmp_path, health=health, poison={"r2": NAN}, steps=4, save_strategy="steps", save_steps=4).train()
    stored = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())["stateful_callbacks"]["StepHealth"]["attributes"]
    assert stored["skipped"] == 1
    assert len(stored["history"]) == 3   # the skipped step's loss is no number
    resumed = StepHealth(HealthConfig(on_nonfinite="skip"), tmp_path)
    trainer = LinearTrainer(tmp_path, health=resumed, poison={"r10": NAN}, steps=6)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert resumed.skipped == 2
    assert len(resumed._history) == 4
    assert list(resumed._history)[:3] == stored["history"]


def test_what_cannot_act_is_refused():
    assert health_faults(HealthConfig(on_nonfinite="skip"), "ddp") == []
    assert health_faults(HealthConfig(), "deepspeed") == []
    assert "set on_nonfinite: stop, or engine: ddp" in health_faults(HealthConfig(on_nonfinite="skip"), "deepspeed")[0]
    for settings, message in (({"health": {"spike_factor": 0.5}}, "give more than 1, or 0 for none"),
                              ({"evaluate_every": 0, "keep_best": True}, "keep_best needs validation losses, but evaluate_every is 0"),
                              ({"evaluate_every": 0, "early_stopping": {"patience": 2}}, "early_stopping needs validation losses")):
        with pytest.raises(ValueError, match=message):
            TrainingConfig.model_validate(settings)
    assert TrainingConfig().health == HealthConfig(on_nonfinite="stop", spike_factor=3.0, watchdog_minutes=30)
    assert TrainingConfig().early_stopping is None
    assert TrainingConfig(early_stopping=EarlyStoppingConfig(patience=5)).early_stopping.min_delta == 0


RANK_PROGRAM = """
import sys
import torch, torch.distributed as dist
from pathlib import Path
from mft.errors import TrainingStopped
from mft.training.config import HealthConfig
from mft.training.health import StepHealth
dist.init_process_group("gloo")
rank = dist.get_rank()
health = StepHealth(HealthConfig(on_nonfinite=sys.argv[2]), Path(sys.argv[1]))
health._step = 7
parameter = torch.nn.Parameter(torch.ones(1))
parameter.grad = torch.ones(1)
health.micro_batch(torch.tensor(1.0), lambda: [f"rank{rank}-first"])
health.micro_batch(torch.tensor(float("nan") if rank == 1 else 2.0), lambda: [f"rank{rank}-second"])
try:
    print("applied" if health.step(torch.tensor(1.0), [parameter]) else "skipped", parameter.grad)
except TrainingStopped as error:
    print("stopped", error)
dist.destroy_process_group()
"""


def on_two_ranks(*arguments):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    ranks = [subprocess.Popen([sys.executable, "-c", RANK_PROGRAM, *arguments], env={**environment, "RANK": str(rank)}, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) for rank in (0, 1)]
    ends = [rank.communicate(timeout=180) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], ends
    return [out.strip() for out, _ in ends]


@pytest.mark.slow
def test_a_nan_on_one_rank_stops_or_skips_on_every_rank_and_the_rows_of_all_are_named(tmp_path):
    outs = on_two_ranks(str(tmp_path), "stop")
    assert all(out.startswith("stopped step 7: the loss is not finite (rank 1 micro-batch 1: nan)") for out in outs), outs
    (event,) = json.loads((tmp_path / "nonfinite.json").read_text())["steps"]
    assert [(batch["rank"], batch["micro_batch"], batch["rows"]) for batch in event["micro_batches"]] == [
        (0, 0, ["rank0-first"]), (0, 1, ["rank0-second"]), (1, 0, ["rank1-first"]), (1, 1, ["rank1-second"])]
    assert on_two_ranks(str(tmp_path), "skip") == ["skipped None", "skipped None"]
