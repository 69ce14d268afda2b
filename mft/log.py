"""Logging to stderr, configured once, by the command line alone."""

import logging
import os
import sys
import warnings


def configure_logging(verbosity: int = 0, debug: bool = False) -> None:
    """Set the level of mft's loggers: -1 warnings, 0 information, 1 and up debug; of libraries only errors are shown."""
    level = logging.DEBUG if debug or verbosity > 0 else logging.WARNING if verbosity < 0 else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    pattern = "%(asctime)s %(levelname).1s %(name)s: %(message)s" if debug else "%(message)s"
    handler.setFormatter(logging.Formatter(pattern, "%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("mft").setLevel(level)
    if not debug:
        # Libraries set levels of their own when they are imported, so theirs are filtered where they come out.
        handler.addFilter(lambda record: record.name.split(".")[0] == "mft" or record.levelno >= logging.ERROR)
        logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)   # it has its own handler
        warnings.filterwarnings("ignore")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "info" if debug else "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if debug else "1")


def shows_progress() -> bool:
    """True when a progress bar would be seen: stderr is a terminal."""
    return sys.stderr.isatty()
