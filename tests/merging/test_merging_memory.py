"""The memory watch sees what is allocated, also when it is gone again. In a process of its own: nothing else is freed there."""

import subprocess
import sys
import textwrap

import pytest

WATCH = textwrap.dedent("""
    import time
    from mft.merging.memory import MemoryWatch
    from mft.process import anonymous_bytes, peak_rss_bytes

    before = bytearray(50_000_000)
    with MemoryWatch(interval_s=0.001) as watch:
        print(watch.grown_bytes)
        block = bytearray(b"x") * 200_000_000
        time.sleep(0.1)
        del block
        time.sleep(0.05)
        print(watch.grown_bytes)
    print(anonymous_bytes() < peak_rss_bytes())
""")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell anonymous memory")
def test_memory_that_was_freed_is_counted_and_memory_from_before_is_not() -> None:
    output = subprocess.run([sys.executable, "-c", WATCH], check=True, capture_output=True, text=True).stdout
    at_start, at_end, ordered = output.split()
    assert int(at_start) < 10_000_000
    assert 200_000_000 <= int(at_end) < 260_000_000
    assert ordered == "True"
