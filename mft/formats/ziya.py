"""The format of Ziya-Coding-34B-v1.0: one BOS, tags that end in a space and a newline.

    <s><human>: \\nBe brief.\\n2+2?\\n<bot>: \\n4</s><human>: \\n3+3?\\n<bot>: \\n

Published is the prompt of one turn. Ours: rounds are joined without a separator, the system text and a newline go before
the first user content, an answer ends with the tokenizer's eos.
"""

from mft.formats.layout import BOS, EOS, Around, Layout, LayoutFormat


class Ziya(LayoutFormat):
    """`ziya`: the newline before `<bot>` belongs to the prompt, which ends in `: ` and a newline."""

    name = "ziya"
    uses_bos = True
    layout = Layout(start=BOS, system=Around("", "\n"), system_place="first_user", user=Around("<human>: \n"), assistant="\n<bot>: \n",
                    end=EOS)
    stop_strings = ("<human>:",)
    tags = ("<human>:", "<bot>:")
