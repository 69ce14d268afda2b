"""Options of a merge: sizes a person writes, and no torch."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from mft.merging.config import MergeOptions, parse_size


@pytest.mark.parametrize(("text", "size"), [
    ("5GB", 5_000_000_000), ("500 mb", 500_000_000), ("1.5kB", 1500), ("2TB", 2_000_000_000_000), ("1B", 1),
    ("5GiB", 5 * 2**30)])
def test_sizes_are_in_decimal_units_but_for_those_of_two(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert MergeOptions(shard_size=text).shard_bytes == size


@pytest.mark.parametrize("text", ["5", "GB", "5GiBi", "-1GB", "0GB", "0.1B", "5 G B", ""])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValidationError, match="for example 5GB"):
        MergeOptions(shard_size=text)


def test_defaults_are_those_of_the_documentation() -> None:
    assert MergeOptions().model_dump() == {"onto": "original", "dtype": "bf16", "shard_size": "5GB", "verify": "layers"}


@pytest.mark.parametrize("option", [{"dtype": "fp8"}, {"onto": "nf4"}, {"verify": "all"}, {"shard": "5GB"}])
def test_unknown_values_and_keys_are_refused(option: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        MergeOptions.model_validate(option)


def test_the_package_and_its_options_import_without_torch() -> None:
    code = "import sys, mft.merging, mft.merging.config; sys.exit('torch' in sys.modules or not callable(mft.merging.merge))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
