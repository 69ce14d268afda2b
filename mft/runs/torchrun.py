"""torchrun without its own account of a failed rank: `python -m mft.runs.torchrun ...`, as `start_ranks` runs it.

Each rank leaves word of how it ended, and the process that started them says it in one message. torchrun would add a traceback of itself.
"""

import logging
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run


def main(arguments: list[str]) -> int:
    """Run torchrun with these arguments; 0 where every rank ended with 0, else 1."""
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        run(get_args_parser().parse_args(arguments))
    except (ChildFailedError, SignalException):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
