"""All layers over one row."""

from collections.abc import Sequence

from mft.conversation import Conversation
from mft.data.decontamination.config import DecontaminateStep, LayerName
from mft.data.decontamination.layer import Hit, Layer, RowText
from mft.data.decontamination.ngrams import Ngrams
from mft.data.decontamination.passages import passages_of
from mft.data.decontamination.structure import StructureLayer
from mft.data.decontamination.substring import Substring
from mft.problems.problem import Problem


class Detector:
    """The layers that a step asks for, made once for all problems; rows may be given in any order."""

    def __init__(self, problems: Sequence[Problem], config: DecontaminateStep) -> None:
        self.layers: dict[LayerName, Layer] = {}
        if "substring" in config.layers:
            passages = [passage for problem in problems for passage in passages_of(problem)]
            self.layers["substring"] = Substring(passages, config.allow)
        if "ngrams" in config.layers:
            self.layers["ngrams"] = Ngrams(problems, config.allow, drop_share=config.drop_share, list_share=config.list_share)
        if "structure" in config.layers:
            self.layers["structure"] = StructureLayer(problems, config.allow)

    def hits(self, row: Conversation) -> list[Hit]:
        """What every layer sees in the row, those that contaminate first; a layer names a problem once."""
        text = RowText(row)
        found = [hit for layer in self.layers.values() for hit in layer.find(text)]
        return sorted(found, key=lambda hit: not hit.contaminated)

    def not_looked_for(self) -> dict[LayerName, list[str]]:
        """Layer -> names of the problems that it cannot see: too short, too common, not Python, not parsed."""
        return {name: missed for name, layer in self.layers.items() if (missed := layer.unseen())}
