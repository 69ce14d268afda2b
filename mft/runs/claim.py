"""Taking a project's output folder: one process at a time, never one that holds something else."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from mft import __version__
from mft.errors import OutputError
from mft.files import read_json, remove_leftovers, take_lock, write_text
from mft.runs.config import ProjectConfig
from mft.runs.finished import STAGES

RUN, CONFIG, LOCK = "run.json", "config.yaml", "lock"


@contextmanager
def claimed(config: ProjectConfig, path: Path, out: Path, *, overwrite: bool) -> Iterator[None]:
    """Hold a project's output folder while its stages run; the resolved config is written into it.

    What a killed process has left half-written is removed. One of several ranks holds nothing: the process that started it does.

    Raises:
        OutputError: the folder holds something that is no run of this project; another process is at it.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file, not a folder")
    if out.is_dir() and any(not _is_ours(path.name) for path in out.iterdir()):
        earlier = read_json(out / RUN).get("name") if (out / RUN).is_file() else None
        started = (out / CONFIG).is_file()
        if not overwrite and not (started and earlier in (None, config.name)):
            raise OutputError(f"{out}: holds something that is no run of '{config.name}'; give another --out, "
                              "or --overwrite to write into it")
    (out / STAGES).mkdir(parents=True, exist_ok=True)
    with _lock(out):
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_text(out / CONFIG, f"# resolved from {path.name} by mft {__version__}\n{text}")
        yield


def _is_ours(name: str) -> bool:
    """What a process that was killed in its first moment has left in an empty folder."""
    return name == STAGES or (name.startswith(f".{CONFIG}.") and name.endswith(".partial"))


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    if "RANK" in os.environ:
        yield
        return
    descriptor = os.open(out / STAGES / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if take_lock(descriptor, f"{out}: another process runs this project there; wait for it, or give another --out"):
            remove_leftovers(out)
            remove_leftovers(out / STAGES)
        yield
    finally:
        os.close(descriptor)
