"""A disk that is full while a checkpoint is written gives one message, and the checkpoint before it stays whole."""

import errno
import subprocess
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from mft.errors import OutputError
from mft.training.checkpoints import checkpoints, whole_checkpoint
from mft.training.disk import full_disk_named, size_bytes

ONE_RANK = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)   # lazily: a traceback may hold a file open


WRITERS = {
    "torch": lambda path, count: torch.save({"a": torch.zeros(count)}, path / "optimizer.pt"),
    "safetensors": lambda path, count: save_file({"a": torch.zeros(count)}, path / "adapter_model.safetensors"),
    "python": lambda path, count: (path / "trainer_state.json").write_bytes(b"0" * 4 * count),
}


def write_checkpoint(run, step, write, count):
    needed = max((size_bytes(folder) for _, folder in checkpoints(run)), default=None)
    with full_disk_named(run, f"checkpoint-{step}", needed), whole_checkpoint(run, step, 1, ONE_RANK) as partial:
        (partial / f"checkpoint-{step}").mkdir()
        write(partial / f"checkpoint-{step}", count)


@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_a_full_disk_is_one_message_and_the_checkpoint_before_is_whole(small_disk, writer):
    run = small_disk / "run"
    run.mkdir()
    write_checkpoint(run, 1, WRITERS[writer], 100_000)
    files = {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(OutputError) as caught:
        write_checkpoint(run, 2, WRITERS[writer], 240_000)
    free = "0.0" if writer == "torch" else "0.6"   # torch's file is removed, but its exception keeps it open
    assert str(caught.value) == (
        f"{run}: the disk is full, checkpoint-2 could not be written: it needs about 0.4 MB, and {free} MB are free; what was written "
        "before is whole; make room, or lower training.keep_last, and start the same command again")
    assert {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()} == files
    assert [step for step, _ in checkpoints(run)] == [1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_quota_counts_as_a_full_disk_and_another_error_passes(tmp_path, number):
    with pytest.raises(OutputError, match=r"the disk is full, the adapter could not be written: [\d.]+ [GM]B are free"), \
            full_disk_named(tmp_path, "the adapter"):
        raise OSError(number, "full")
    with pytest.raises(PermissionError), full_disk_named(tmp_path, "the adapter"):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(RuntimeError, match="file write failed"), full_disk_named(tmp_path, "the adapter"):
        raise RuntimeError("PytorchStreamWriter failed writing file: file write failed")   # though there is room
