"""On the server's own path: writes down the ids that `generate` was given and gave back, in the process that serves.

Python imports this file at its start. Nothing is changed but that each call of `GenerationMixin.generate` leaves a line in $SERVED_IDS.
"""

import importlib.abc
import importlib.util
import json
import os
import sys

MODULE = "transformers.generation.utils"


class Watcher(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            watch(module.GenerationMixin)

        spec.loader.exec_module = exec_module
        return spec


def watch(mixin):
    original = mixin.generate

    def generate(self, *arguments, **options):
        output = original(self, *arguments, **options)
        with open(os.environ["SERVED_IDS"], "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"prompt": options["input_ids"].tolist(), "output": output.tolist()}) + "\n")
        return output

    mixin.generate = generate


if "SERVED_IDS" in os.environ:
    sys.meta_path.insert(0, Watcher())
