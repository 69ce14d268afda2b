"""What a process says of its memory is its own, not that of the process which started it."""

import subprocess
import sys

import pytest

PARENT = """
import subprocess, sys
block = bytearray(b"x") * 400_000_000
subprocess.run([sys.executable, "-c", "from mft.process import peak_rss_bytes; print(peak_rss_bytes())"], check=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc")
def test_peak_memory_is_not_inherited_from_the_process_that_started_this_one() -> None:
    output = subprocess.run([sys.executable, "-c", PARENT], check=True, capture_output=True, text=True).stdout
    assert 5_000_000 < int(output) < 200_000_000
