"""The format of Stanford Alpaca.

    <s>Below is an instruction that describes a task. Write a response that appropriately completes the request.\\n
    \\n### Instruction:\\n2+2?\\n\\n### Response:4</s>

An instruction with an input has a preamble of its own and `### Input:`. Ours: a system message replaces the preamble; further
rounds repeat `### Instruction:` after `</s>`. Source: tatsu-lab/stanford_alpaca, `train.py`.
"""

from mft.formats.layout import BOS, EOS, Around, Layout, LayoutFormat

TASK = "Below is an instruction that describes a task"
REQUEST = "Write a response that appropriately completes the request."


class Alpaca(LayoutFormat):
    """`alpaca`: the answer follows `### Response:` directly."""

    name = "alpaca"
    uses_bos = True
    layout = Layout(start=BOS, preamble=f"{TASK}. {REQUEST}", system_place="preamble",
                    preamble_with_input=f"{TASK}, paired with an input that provides further context. {REQUEST}",
                    user=Around("\n\n### Instruction:\n", "\n\n### Response:"), input="\n\n### Input:\n", assistant="", end=EOS)
    stop_strings = ("### Instruction:",)
    tags = ("### Instruction:", "### Input:", "### Response:")
