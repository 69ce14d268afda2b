"""A process that loads a base through the cache: `cache_worker.py BASE FOLDER STAMPS [together] [killed]`; prints `quantised` or `read`.

together: it begins when another one is ready too. killed: it ends itself by SIGKILL when the weights are written and the entry is not.
"""

import os
import signal
import sys
import time
from pathlib import Path

from mft.modeling import quantized_cache
from mft.modeling.config import QuantizationConfig
from mft.modeling.load import load_base

base, folder, stamps = map(Path, sys.argv[1:4])
written = []
save = quantized_cache._save


def save_and_note(*arguments):
    save(*arguments)
    written.append(True)
    if "killed" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)


quantized_cache._save = save_and_note
if "together" in sys.argv:
    stamps.with_name(f"ready-{os.getpid()}").touch()
    while len(list(stamps.parent.glob("ready-*"))) < 2:
        time.sleep(0.01)
load_base(base, QuantizationConfig(), cache=quantized_cache.QuantizedCache(folder, stamps))
print("quantised" if written else "read")
