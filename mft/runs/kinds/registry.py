"""The kinds of stages by name, as configs call them."""

from typing import Final

from mft.runs.kinds.context import Kind
from mft.runs.kinds.data import DATA
from mft.runs.kinds.evaluate import EVALUATE
from mft.runs.kinds.merge import MERGE
from mft.runs.kinds.quantize import QUANTIZE
from mft.runs.kinds.release import RELEASE
from mft.runs.kinds.report import REPORT
from mft.runs.kinds.synthesize import SYNTHESIZE
from mft.runs.kinds.train import TRAIN

KINDS: Final[dict[str, Kind]] = {
    "data": DATA, "synthesize": SYNTHESIZE, "train": TRAIN, "merge": MERGE, "quantize": QUANTIZE, "evaluate": EVALUATE,
    "release": RELEASE, "report": REPORT}
