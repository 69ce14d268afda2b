"""Fixtures of the merge's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from merging_folders import write_adapter, write_llama

from mft.merging import blocks


@pytest.fixture(autouse=True)
def _small_blocks_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks small enough that tiny matrices have several; and no team of threads for them."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 64 * 64)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random bf16 Llama in several shards. Not to be changed by a test."""
    return write_llama(tmp_path_factory.mktemp("llama") / "base")


@pytest.fixture(scope="session")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random fp32 adapter for `llama`. Not to be changed by a test."""
    return write_adapter(tmp_path_factory.mktemp("lora") / "adapter")
