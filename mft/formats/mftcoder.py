"""The format of MFTCoder from v0.3 on: BOS heads every turn, a newline ends every content.

    <s>system\\nBe brief.\\n<s>human\\n2+2?\\n<s>bot\\n4\\n</s>\\n<s>human\\n3+3?\\n<s>bot\\n

The newline before `</s>` is trained, or a model would never reach `</s>`; the one after it is not. Source: MFTCoder at
its last commit, `data/preprocess_data.py`; its README draws the text without some of these newlines, and the code wins.
"""

from typing import Final

from mft.formats.layout import EOS, Around, Layout, LayoutFormat

BOS: Final = "<s>"


class MftCoder(LayoutFormat):
    """`mftcoder`: the text is that of a vocabulary in which `<s>` is a control token; elsewhere it is refused."""

    name = "mftcoder"
    layout = Layout(system=Around(f"{BOS}system\n", "\n"), user=Around(f"{BOS}human\n", "\n"), assistant=f"{BOS}bot\n", tail="\n",
                    end=EOS, then="\n", control=(BOS,))
    stop_strings = ("<s>human",)
