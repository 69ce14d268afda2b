"""`--resume auto` takes the newest checkpoint that is whole, and names a damaged one."""

import logging

import pytest
from training.test_training_run import write_checkpoint

from mft.errors import CheckpointError
from mft.training.starting_point import claim_run


def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path, caplog):
    assert claim_run(tmp_path, "job", "auto", overwrite=False, replace_other=False) == (None, None)
    for step in (5, 10):
        write_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-10" / "optimizer.pt").write_bytes(b"torn")
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {step}, "loss": 1.0}}\n' for step in range(1, 12)))
    with caplog.at_level(logging.WARNING):
        finished, checkpoint = claim_run(tmp_path, "job", "auto", overwrite=False, replace_other=False)
    assert finished is None
    assert checkpoint == tmp_path / "checkpoint-5"
    assert "checkpoint-10 is damaged and is passed over" in caplog.text
    assert "optimizer.pt" in caplog.text
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 5
    assert not (tmp_path / "checkpoint-10").exists()   # it will be written again


def test_a_run_of_which_no_checkpoint_is_whole_does_not_silently_begin_anew(tmp_path):
    claim_run(tmp_path, "job", "auto", overwrite=False, replace_other=False)
    write_checkpoint(tmp_path, 5)
    (tmp_path / "checkpoint-5" / "scheduler.pt").unlink()
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints is whole; start anew with --resume never"):
        claim_run(tmp_path, "job", "auto", overwrite=False, replace_other=False)
    assert claim_run(tmp_path, "job", "never", overwrite=False, replace_other=False) == (None, None)
